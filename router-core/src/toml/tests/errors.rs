//! What is printed for each error.

use super::{RouteFile, file, lookup};

/// What is printed for a file with errors.
fn printed(text: &str) -> String {
    RouteFile::read(file(text), &lookup).1.into_result().unwrap_err().to_string()
}

/// A route with the one step `step`, and what is printed for it.
fn step_error(step: &str) -> String {
    printed(&format!("[[route]]\nfrom = 'a:b'\nsteps = [{step}]\n"))
}

/// Each error in a step, and the exact lines that are printed for it.
#[test]
fn each_error_in_a_step_points_at_its_characters() {
    let all = crate::steps::ALL.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
    for (step, expected) in STEP_ERRORS {
        let expected = expected.trim_start().replace("the steps are ALL", &format!("the steps are {all}"));
        assert_eq!(step_error(step), expected, "{step}");
    }
}

const STEP_ERRORS: &[(&str, &str)] = &[
    (
        "{ lgo = 'x' }",
        r#"
error: unknown step `lgo`
 --> routes.toml:3:12
  |
3 | steps = [{ lgo = 'x' }]
  |            ^^^ did you mean `log`?
  |
  = help: the steps are ALL"#,
    ),
    (
        "{ log = 5 }",
        r#"
error: `log` takes text or a table with `message` and `level`, found an integer
 --> routes.toml:3:18
  |
3 | steps = [{ log = 5 }]
  |                  ^"#,
    ),
    (
        "{ log = { mesage = 'x', level = 'loud' } }",
        r#"
error: unknown key `mesage` in `log`
 --> routes.toml:3:20
  |
3 | steps = [{ log = { mesage = 'x', level = 'loud' } }]
  |                    ^^^^^^ did you mean `message`?
  |
  = help: `log` takes `message` and `level`

error: `level` takes one of TRACE, DEBUG, INFO, WARN, ERROR
 --> routes.toml:3:43
  |
3 | steps = [{ log = { mesage = 'x', level = 'loud' } }]
  |                                           ^^^^"#,
    ),
    (
        "{ log = 'x', to = 'a:b', frm = 5 }",
        r#"
error: a step has one key, found `log` and `to`
 --> routes.toml:3:23
  |
3 | steps = [{ log = 'x', to = 'a:b', frm = 5 }]
  |                       ^^
  |
  = help: write each step in braces of its own

error: unknown step `frm`
 --> routes.toml:3:35
  |
3 | steps = [{ log = 'x', to = 'a:b', frm = 5 }]
  |                                   ^^^
  |
  = help: the steps are ALL"#,
    ),
    (
        "{}",
        r#"
error: a step cannot be empty
 --> routes.toml:3:10
  |
3 | steps = [{}]
  |          ^^
  |
  = help: for example `{ log = "Hello" }`"#,
    ),
    (
        "'log'",
        r#"
error: step `log` needs an argument
 --> routes.toml:3:11
  |
3 | steps = ['log']
  |           ^^^
  |
  = help: write `{ log = ... }`"#,
    ),
    (
        "'setBody'",
        r#"
error: unknown step `setBody`
 --> routes.toml:3:11
  |
3 | steps = ['setBody']
  |           ^^^^^^^ did you mean `set_body`?
  |
  = help: the steps are ALL"#,
    ),
    (
        "{ stop = true }",
        r#"
error: step `stop` takes no argument
 --> routes.toml:3:12
  |
3 | steps = [{ stop = true }]
  |            ^^^^
  |
  = help: write its name alone: `"stop"`"#,
    ),
    (
        "5",
        r#"
error: `steps` takes tables like `{ log = "Hello" }`, found an integer
 --> routes.toml:3:10
  |
3 | steps = [5]
  |          ^"#,
    ),
    (
        "{ set_header = { name = 5 } }",
        r#"
error: `set_header` needs the key `value`
 --> routes.toml:3:25
  |
3 | steps = [{ set_header = { name = 5 } }]
  |                         ^^^^^^^^^^^^

error: `name` takes text, found an integer
 --> routes.toml:3:34
  |
3 | steps = [{ set_header = { name = 5 } }]
  |                                  ^"#,
    ),
    (
        "{ choice = { when = [], otherwise = 5 } }",
        r#"
error: `when` needs at least one `{ predicate = ..., steps = ... }`
 --> routes.toml:3:30
  |
3 | steps = [{ choice = { when = [], otherwise = 5 } }]
  |                              ^^

error: `otherwise` takes an array of steps, found an integer
 --> routes.toml:3:46
  |
3 | steps = [{ choice = { when = [], otherwise = 5 } }]
  |                                              ^"#,
    ),
    (
        "{ choice = { otherwise = [] } }",
        r#"
error: `choice` needs the key `when`
 --> routes.toml:3:21
  |
3 | steps = [{ choice = { otherwise = [] } }]
  |                     ^^^^^^^^^^^^^^^^^^"#,
    ),
    (
        "{ choice = { when = [{ predicate = true, then = [] }] } }",
        r#"
error: `when` needs the key `steps`
 --> routes.toml:3:31
  |
3 | steps = [{ choice = { when = [{ predicate = true, then = [] }] } }]
  |                               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: `predicate` takes text, found a boolean
 --> routes.toml:3:45
  |
3 | steps = [{ choice = { when = [{ predicate = true, then = [] }] } }]
  |                                             ^^^^

error: unknown key `then` in `when`
 --> routes.toml:3:51
  |
3 | steps = [{ choice = { when = [{ predicate = true, then = [] }] } }]
  |                                                   ^^^^
  |
  = help: `when` takes `predicate` and `steps`"#,
    ),
    (
        "{ loop = { cuont = 3, steps = [{ lgo = 'x' }] } }",
        r#"
error: unknown key `cuont` in `loop`
 --> routes.toml:3:21
  |
3 | steps = [{ loop = { cuont = 3, steps = [{ lgo = 'x' }] } }]
  |                     ^^^^^ did you mean `count`?
  |
  = help: `loop` takes `count`, `while`, `copy` and `steps`

error: unknown step `lgo`
 --> routes.toml:3:43
  |
3 | steps = [{ loop = { cuont = 3, steps = [{ lgo = 'x' }] } }]
  |                                           ^^^ did you mean `log`?
  |
  = help: the steps are ALL"#,
    ),
    (
        "{ loop = { count = -1, while = 'true', copy = 'no' } }",
        r#"
error: `loop` needs the key `steps`
 --> routes.toml:3:19
  |
3 | steps = [{ loop = { count = -1, while = 'true', copy = 'no' } }]
  |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

error: `count` takes a whole number, not negative, or text with placeholders
 --> routes.toml:3:29
  |
3 | steps = [{ loop = { count = -1, while = 'true', copy = 'no' } }]
  |                             ^^

error: `loop` takes `count` or `while`, not both
 --> routes.toml:3:33
  |
3 | steps = [{ loop = { count = -1, while = 'true', copy = 'no' } }]
  |                                 ^^^^^

error: `copy` takes `true` or `false`, found text
 --> routes.toml:3:56
  |
3 | steps = [{ loop = { count = -1, while = 'true', copy = 'no' } }]
  |                                                        ^^^^"#,
    ),
    (
        "{ loop = { steps = [] } }",
        r#"
error: `loop` needs one of `count` and `while`
 --> routes.toml:3:19
  |
3 | steps = [{ loop = { steps = [] } }]
  |                   ^^^^^^^^^^^^^^"#,
    ),
    (
        "{ filter = { predicat = 'x', steps = 5 } }",
        r#"
error: unknown key `predicat` in `filter`
 --> routes.toml:3:23
  |
3 | steps = [{ filter = { predicat = 'x', steps = 5 } }]
  |                       ^^^^^^^^ did you mean `predicate`?
  |
  = help: `filter` takes `predicate` and `steps`

error: `steps` takes an array of steps, found an integer
 --> routes.toml:3:47
  |
3 | steps = [{ filter = { predicat = 'x', steps = 5 } }]
  |                                               ^"#,
    ),
    (
        "{ delay = -5 }",
        r#"
error: `delay` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds
 --> routes.toml:3:20
  |
3 | steps = [{ delay = -5 }]
  |                    ^^"#,
    ),
    (
        "{ delay = true }",
        r#"
error: `delay` takes a duration like `1s` or bare milliseconds, found a boolean
 --> routes.toml:3:20
  |
3 | steps = [{ delay = true }]
  |                    ^^^^"#,
    ),
    (
        "{ set_body = { a = ['x ${body}'] } }",
        r#"
error: a placeholder inside an array or table is not replaced
 --> routes.toml:3:33
  |
3 | steps = [{ set_body = { a = ['x ${body}'] } }]
  |                                 ^^^^^^^
  |
  = help: write the JSON as text, `set_body = '...'`, or a literal `${` as `\${`"#,
    ),
    (
        "{ set_body = { a = inf } }",
        r#"
error: `inf` and `nan` are no numbers here
 --> routes.toml:3:29
  |
3 | steps = [{ set_body = { a = inf } }]
  |                             ^^^"#,
    ),
    (
        "{ set_body = 0xFFFFFFFFFFFFFFFFFF }",
        r#"
error: this integer does not fit into 64 bits
 --> routes.toml:3:23
  |
3 | steps = [{ set_body = 0xFFFFFFFFFFFFFFFFFF }]
  |                       ^^^^^^^^^^^^^^^^^^^^"#,
    ),
    (
        "{ to = 'log:${env:NOBODY}' }",
        r#"
error: the environment variable `NOBODY` is not set
 --> routes.toml:3:22
  |
3 | steps = [{ to = 'log:${env:NOBODY}' }]
  |                      ^^^^^^^^^^^^^
  |
  = help: set it, or give a default: `${env:NOBODY:-default}`"#,
    ),
];

#[test]
fn a_file_that_is_not_toml_shows_the_first_slip_of_each_line() {
    let text = r#"a = 'x
[[route]]
from = timer:x
from = 3
steps = [ { log = 'x' ]
b = "\q""#;
    let expected = r#"
error: not TOML: invalid literal string, expected `'`
 --> routes.toml:1:7
  |
1 | a = 'x
  |       ^

error: not TOML: string values must be quoted
 --> routes.toml:3:8
  |
3 | from = timer:x
  |        ^^^^^^^

error: not TOML: duplicate key
 --> routes.toml:4:1
  |
4 | from = 3
  | ^^^^

error: not TOML: invalid inline table element, expected `,`
 --> routes.toml:5:23
  |
5 | steps = [ { log = 'x' ]
  |                       ^

error: not TOML: missing comma between key-value pairs, expected `,`
 --> routes.toml:6:1
  |
6 | b = "\q"
  | ^"#;
    assert_eq!(printed(text), expected.trim_start());
}

#[test]
fn a_route_reports_all_of_its_errors() {
    let text = r#"[route]
from = 5
id = 7
stesp = []
auto_startup = 'yes'
startup_order = 5000000000
[route.error_handler]
maximum_redeliveries = -1
retries = 3
back_off_multiplier = 0.5
redelivery_delay = 'soon'"#;
    let expected = r#"
error: `route` is one table
 --> routes.toml:1:2
  |
1 | [route]
  |  ^^^^^
  |
  = help: write `[[route]]`, with two brackets, also for a single route

error: `from` takes a URI, or a table with `uri` and options, found an integer
 --> routes.toml:2:8
  |
2 | from = 5
  |        ^

error: `id` takes text, found an integer
 --> routes.toml:3:6
  |
3 | id = 7
  |      ^

error: unknown key `stesp` in `route`
 --> routes.toml:4:1
  |
4 | stesp = []
  | ^^^^^ did you mean `steps`?
  |
  = help: `route` takes `id`, `description`, `auto_startup`, `startup_order`, `from`, `error_handler` and `steps`

error: `auto_startup` takes `true` or `false`, found text
 --> routes.toml:5:16
  |
5 | auto_startup = 'yes'
  |                ^^^^^

error: `startup_order` takes a whole number of 32 bits
 --> routes.toml:6:17
  |
6 | startup_order = 5000000000
  |                 ^^^^^^^^^^

error: `maximum_redeliveries` takes a whole number, not negative
 --> routes.toml:8:24
  |
8 | maximum_redeliveries = -1
  |                        ^^

error: unknown key `retries` in `error_handler`
 --> routes.toml:9:1
  |
9 | retries = 3
  | ^^^^^^^ did you mean `retry_on`?
  |
  = help: `error_handler` takes `maximum_redeliveries`, `redelivery_delay`, `back_off_multiplier`, `maximum_redelivery_delay`, `retry_on` and `dead_letter`

error: `back_off_multiplier` takes a number of at least 1
  --> routes.toml:10:23
   |
10 | back_off_multiplier = 0.5
   |                       ^^^

error: `redelivery_delay` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds
  --> routes.toml:11:20
   |
11 | redelivery_delay = 'soon'
   |                    ^^^^^^"#;
    assert_eq!(printed(text), expected.trim_start());
}

#[test]
fn the_plural_is_not_the_name() {
    let text = r#"[[routes]]
steps = 'x'
"#;
    let expected = r#"
error: `route` needs the key `from`
 --> routes.toml:1:1
  |
1 | [[routes]]
  | ^^^^^^^^^^

error: unknown table `routes`
 --> routes.toml:1:3
  |
1 | [[routes]]
  |   ^^^^^^ did you mean `route`?
  |
  = help: each route is a table `[[route]]`

error: `steps` takes an array of steps, found text
 --> routes.toml:2:9
  |
2 | steps = 'x'
  |         ^^^"#;
    assert_eq!(printed(text), expected.trim_start());
}
