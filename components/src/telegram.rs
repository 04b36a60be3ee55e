//! `telegram:bots`: receives what people send to a Telegram bot, and lets the bot send.
//!
//! | option | in | takes | default | meaning |
//! |---|---|---|---|---|
//! | `authorization_token` | both | secret |  | required: where the token of the bot is kept |
//! | `base_uri` | both | URL | `https://api.telegram.org` | where the Bot API is |
//! | `timeout` | `from` | duration | `30s` | long-poll timeout, at most 50s |
//! | `limit` | `from` | integer | `100` | how many updates one poll brings, at most 100 |
//! | `allowed_updates` | `from` | text |  | the kinds of updates, separated by commas; unset: as set before, at first all usual ones |
//! | `drop_pending` | `from` | boolean | `false` | whether what came in before the very first start is dropped |
//! | `dedupe` | `from` | boolean | `false` | whether the last update that is done is stored, so that the next leader does not repeat it |
//! | `delete_webhook` | `from` | boolean | `false` | whether a webhook that is in the way is deleted |
//! | `chat_id` | `to` | text |  | the chat that is written to; unset: the header `telegram.chat_id` |
//! | `pacing` | `to` | duration | `1s` | the shortest time between two messages to one chat |
//! | `state` | `from` | text |  | a file for the position of a route without a lock; below `master:` it travels with the lock |
//!
//! For example `master:bot:telegram:bots?authorization_token=env:BOT_TOKEN`. The token is written as
//! `env:NAME` or `file:/path`; it is a part of every address that is called, and of no log and no error.
//!
//! # Receiving
//! Telegram lets one process poll. Below `master:` that is the leader.
//!
//! Each update is an exchange: the body is its JSON, the headers are `telegram.update_id`, `telegram.type`
//! (`message`, `callback_query`, ...), and where there are such, `telegram.chat_id` and `telegram.text`;
//! `telegram.bot_id` is the number in front of the token.
//!
//! - **In order, at least once.** Asking for more is what acknowledges: Telegram then forgets what was before.
//!   So the next update is asked for when this one is done: processed, or taken by the dead letter endpoint.
//!   An exchange that fails ends the batch, and comes again after a pause, before all later ones, until it is
//!   done: give such a route a dead letter endpoint. What nobody acknowledges, Telegram keeps for 24 hours.
//! - **Hand-over.** Whoever leads next asks without a position and gets what is not acknowledged: Telegram
//!   itself is the queue. A leader that stops in order drops the poll that waits, finishes the exchange in
//!   hand, and acknowledges it before the lock is given away: nothing comes twice. After a crash, up to a
//!   whole batch (`limit`) comes again.
//! - **`dedupe=true`** stores the id of each update that is done, with the lock or in the file `state`. Then a
//!   crash repeats one update at most, the one that was under way or just done. Effects outside stay at least
//!   once: `telegram.update_id` is a key by which a receiver can tell.
//! - **Ids start again** anywhere after a week of silence. So a position is only used for 24 hours, and ids
//!   below what was asked for are new ones.
//! - **Somebody else polls** (409): a few quick tries, as it happens when processes are replaced, then one
//!   every 5 to 30 seconds, with a warning that says so. **A webhook is set** (409): the route fails and says
//!   what to do; a webhook that nobody knows of may mean that somebody else has the token.
//! - 429 is waited for as long as Telegram says. An invalid token (401, 404) fails the route. Everything else
//!   is tried again, with pauses that double up to half a minute.
//!
//! # Sending
//! The body is the text of a message (`sendMessage`), or a JSON object with the parameters of the method. The
//! header `telegram.method` names another method of the Bot API. The response becomes the body, and the id of
//! the new message the header `telegram.message_id`. Messages to one chat keep their distance (`pacing`).
//! When Telegram asks for a pause, it is made, and the message is sent again, three times at most.

mod bot;
mod consumer;
mod position;
mod producer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, Processor};
use router_core::error::{ConfigError, ConfigErrors};
use router_core::options::{ComponentDescription, OptionKind, Options, PathKind, Side, option, path};
use router_core::uri::EndpointUri;

use crate::http_client::HttpClients;
use crate::http_client::credentials::has_credentials;
use crate::missed_ticks::STATE_OPTION;
use bot::Bot;
use consumer::Poller;
use producer::Sender;

/// The component.
#[derive(Clone, Default, Debug)]
pub struct TelegramComponent {
    clients: HttpClients,
}

impl TelegramComponent {
    /// The component, which shares the connections of `clients`.
    #[must_use]
    pub fn new(clients: HttpClients) -> Self {
        Self { clients }
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "telegram",
    summary: "receives what people send to a Telegram bot, and lets the bot send",
    syntax: "telegram:bots",
    path: path("", PathKind::Name),
    consumes: true,
    produces: true,
    options: &[
        option(
            "authorization_token",
            OptionKind::Secret,
            None,
            "required: where the token of the bot is kept",
        ),
        option("base_uri", OptionKind::Url, Some("https://api.telegram.org"), "where the Bot API is"),
        option("timeout", OptionKind::Duration, Some("30s"), "long-poll timeout, at most 50s").of(Side::From),
        option("limit", OptionKind::Integer, Some("100"), "how many updates one poll brings, at most 100")
            .of(Side::From),
        option(
            "allowed_updates",
            OptionKind::Text,
            None,
            "the kinds of updates, separated by commas; unset: as set before, at first all usual ones",
        )
        .of(Side::From),
        option(
            "drop_pending",
            OptionKind::Boolean,
            Some("false"),
            "whether what came in before the very first start is dropped",
        )
        .of(Side::From),
        option(
            "dedupe",
            OptionKind::Boolean,
            Some("false"),
            "whether the last update that is done is stored, so that the next leader does not repeat it",
        )
        .of(Side::From),
        option(
            "delete_webhook",
            OptionKind::Boolean,
            Some("false"),
            "whether a webhook that is in the way is deleted",
        )
        .of(Side::From),
        option(
            "chat_id",
            OptionKind::Text,
            None,
            "the chat that is written to; unset: the header `telegram.chat_id`",
        )
        .of(Side::To),
        option(
            "pacing",
            OptionKind::Duration,
            Some("1s"),
            "the shortest time between two messages to one chat",
        )
        .of(Side::To),
        STATE_OPTION.of(Side::From),
    ],
};

/// What the server makes of a longer timeout.
const LONGEST_POLL: Duration = Duration::from_secs(50);
/// What the server makes of a higher limit.
const HIGHEST_LIMIT: u64 = 100;

impl Component for TelegramComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        if uri.path() != "bots" {
            let message = "a telegram endpoint is `telegram:bots`, as in Camel";
            errors.push(match uri.path() {
                "" => uri.error_in_whole(message),
                path => uri.error_in_path(0..path.len(), message),
            });
        }
        let token = options.secret("authorization_token").ok_or_else(|| {
            let error = uri.error_in_whole("option `authorization_token` is required");
            error.help("for example `telegram:bots?authorization_token=env:BOT_TOKEN`")
        });
        let token = if options.are_right(&["authorization_token"]) { errors.collect(token) } else { None };
        let base = errors.collect(base(uri, &options));
        let timeout = options.duration("timeout");
        let limit = options.integer("limit").unwrap_or(HIGHEST_LIMIT);
        if timeout > LONGEST_POLL {
            errors.push(uri.error_at_option("timeout", "option `timeout` is at most 50s"));
        }
        if !(1..=HIGHEST_LIMIT).contains(&limit) {
            errors.push(uri.error_at_option("limit", "option `limit` is from 1 to 100"));
        }
        errors.into_result()?;
        let (Some(token), Some(base)) = (token, base) else { unreachable!("what is missing is an error") };
        let bot = Arc::new(Bot::new(token, &base, self.clients.clone()));
        let allowed = options.text("allowed_updates");
        let poller = Poller {
            bot: Arc::clone(&bot),
            timeout,
            limit,
            allowed: allowed.map(|kinds| kinds.split(',').map(|kind| kind.trim().to_owned()).collect()),
            drop_pending: options.boolean("drop_pending"),
            dedupe: options.boolean("dedupe"),
            delete_webhook: options.boolean("delete_webhook"),
            state: options.text("state").map(PathBuf::from),
        };
        let sender = Sender::new(bot, options.text("chat_id"), options.duration("pacing"));
        Ok(Box::new(Telegram { poller, sender: Arc::new(sender) }))
    }
}

fn base(uri: &EndpointUri, options: &Options) -> Result<Url, ConfigError> {
    let text = options.text("base_uri").unwrap_or_default();
    if has_credentials(&text) {
        let message = "option `base_uri` cannot contain a user or password";
        let advice = "a Bot API is called with the token of the bot alone, which is in the option \
                      `authorization_token` as `env:NAME` or `file:/path`";
        return Err(uri.error_at_secret("base_uri", message).help(advice));
    }
    let parsed = Url::parse(&text).ok();
    let parsed = parsed
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
    parsed.ok_or_else(|| {
        uri.error_at_option(
            "base_uri",
            "option `base_uri` takes a URL that starts with `http://` or `https://`",
        )
    })
}

struct Telegram {
    poller: Poller,
    sender: Arc<Sender>,
}

impl Endpoint for Telegram {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(self.poller.clone()))
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(Arc::clone(&self.sender) as _)
    }

    fn keeps_state(&self, below_lock: bool) -> bool {
        let Poller { dedupe, drop_pending, state, .. } = &self.poller;
        (*dedupe || *drop_pending) && (below_lock || state.is_some())
    }
}
