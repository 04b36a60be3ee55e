//! The outside: `https://host/bot<token>/<method>`, parameters in the query, as JSON or as a form.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::polls::{Refusal, get_updates};
use super::{Call, DATE, Fault, Shared};

/// More than any message.
const MAX_BODY_BYTES: usize = 1 << 20;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let app = Router::new().fallback(handle).with_state(shared);
    // It ends with its task.
    let _ = axum::serve(listener, app).await;
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let (token, method) = path.strip_prefix("/bot").and_then(|rest| rest.split_once('/')).unwrap_or_default();
    if !token.contains(':') {
        return failure(404, "Not Found", None);
    }
    if token != shared.token {
        return failure(401, "Unauthorized", None);
    }
    let parameters = parameters(request).await;
    let fault = {
        let mut bot = shared.bot();
        bot.calls.push(Call {
            method: method.to_owned(),
            parameters: parameters.clone(),
            at: Instant::now(),
        });
        let position = bot.faults.iter().position(|(of, _)| of.eq_ignore_ascii_case(method));
        position.and_then(|position| bot.faults.remove(position)).map(|(_, fault)| fault)
    };
    match fault {
        None => {}
        Some(Fault::TooManyRequests(seconds)) => {
            return failure(429, &format!("Too Many Requests: retry after {seconds}"), Some(seconds));
        }
        Some(Fault::Status(status)) => return answer(status, "<html>what the gateway says</html>".into()),
        Some(Fault::Broken) => return answer(200, r#"{"ok":true,"result":[{"upd"#.into()),
        Some(Fault::Slow(duration)) => tokio::time::sleep(duration).await,
    }
    match call(shared, &method.to_ascii_lowercase(), &parameters).await {
        Ok(result) => answer(200, json!({ "ok": true, "result": result }).to_string()),
        Err(Refusal { code, description }) => failure(code, description, None),
    }
}

async fn call(shared: Arc<Shared>, method: &str, parameters: &Value) -> Result<Value, Refusal> {
    match method {
        "getupdates" => get_updates(shared, parameters).await,
        "getme" => Ok(me()),
        "sendmessage" if parameters["chat_id"].is_null() => {
            Err(Refusal { code: 400, description: "Bad Request: chat_id is empty" })
        }
        "sendmessage" if parameters["text"].as_str().is_none_or(str::is_empty) => {
            Err(Refusal { code: 400, description: "Bad Request: message text is empty" })
        }
        "sendmessage" => {
            let mut bot = shared.bot();
            let id = bot.next_message;
            bot.next_message += 1;
            let chat = &parameters["chat_id"];
            // A number, also where the caller wrote its text.
            let number = chat.as_str().and_then(|text| text.parse::<i64>().ok());
            let chat = json!({ "id": number.map_or(chat.clone(), Value::from), "type": "private" });
            Ok(json!({ "message_id": id, "date": DATE, "chat": chat, "text": parameters["text"] }))
        }
        "sendchataction" => Ok(true.into()),
        "setwebhook" => {
            shared.bot().set_webhook(parameters["url"].as_str().unwrap_or_default());
            Ok(true.into())
        }
        "deletewebhook" => {
            let mut bot = shared.bot();
            bot.set_webhook("");
            if matches!(&parameters["drop_pending_updates"], Value::Bool(true)) {
                bot.queue.clear();
            }
            Ok(true.into())
        }
        "getwebhookinfo" => {
            let bot = shared.bot();
            let count = bot.queue.len();
            Ok(json!({ "url": bot.webhook, "has_custom_certificate": false, "pending_update_count": count }))
        }
        _ => Err(Refusal { code: 404, description: "Not Found: method not found" }),
    }
}

/// The bot, with all that a bot says of itself.
fn me() -> Value {
    json!({
        "id": 1,
        "is_bot": true,
        "first_name": "Double",
        "username": "double_bot",
        "can_join_groups": true,
        "can_read_all_group_messages": false,
        "supports_inline_queries": false,
        "can_connect_to_business": false,
        "has_main_web_app": false,
    })
}

/// The parameters of the query, and over them those of the body.
async fn parameters(request: Request) -> Value {
    let mut parameters = pairs(request.uri().query().unwrap_or_default());
    let kind = request.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/form-data") {
        if let Ok(mut form) = Multipart::from_request(request, &()).await {
            while let Ok(Some(field)) = form.next_field().await {
                let name = field.name().unwrap_or_default().to_owned();
                parameters.insert(name, field.text().await.unwrap_or_default().into());
            }
        }
        return parameters.into();
    }
    let form = kind.starts_with("application/x-www-form-urlencoded");
    let body = to_bytes(request.into_body(), MAX_BODY_BYTES).await.unwrap_or_default();
    if form {
        parameters.extend(pairs(&String::from_utf8_lossy(&body)));
    } else if let Ok(Value::Object(body)) = serde_json::from_slice(&body) {
        parameters.extend(body);
    }
    parameters.into()
}

/// The parameters of a query or of a form.
fn pairs(text: &str) -> Map<String, Value> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
        (name.to_owned(), value.into())
    });
    pairs.collect()
}

fn failure(code: u16, description: &str, retry_after: Option<u64>) -> Response {
    let mut body = json!({ "ok": false, "error_code": code, "description": description });
    if let Some(seconds) = retry_after {
        body["parameters"] = json!({ "retry_after": seconds });
    }
    answer(code, body.to_string())
}

fn answer(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status.try_into().unwrap_or_default();
    let json = axum::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}
