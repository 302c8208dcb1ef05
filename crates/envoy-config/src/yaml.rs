//! Values as YAML that Envoy reads as the same values.
//!
//! Text is plain only where every parser of YAML, old or new, reads it as text; all else is quoted
//! as in JSON, which is YAML, too. What fits into a line is on one line.

use std::fmt::Write;
use std::net::Ipv4Addr;

use serde_json::{Map, Value};

const LINE_WIDTH: usize = 120;

/// Words that YAML 1.1 or 1.2 does not read as text, in lower case.
const NOT_TEXT: [&str; 12] =
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];

/// How configurations are read. With many credentials an anchor is used hundreds of times, which is
/// no attack.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { budget: None }
}

/// A value on one line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(text) => quoted(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(flow).collect();
            format!("[{}]", elements.join(", "))
        }
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", text(key), flow(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// The members of an object, each on lines of its own, indented by this many spaces.
pub(super) fn block(object: &Map<String, Value>, indent: usize) -> String {
    let mut lines = String::new();
    write_members(&mut lines, object, indent);
    lines
}

fn write_members(lines: &mut String, object: &Map<String, Value>, indent: usize) {
    for (key, value) in object {
        let key = format!("{:indent$}{}:", "", text(key));
        let on_one_line = format!("{key} {}", flow(value));
        match value {
            Value::Array(elements) if is_list(elements) || on_one_line.len() > LINE_WIDTH => {
                line(lines, &key);
                elements.iter().for_each(|element| write_element(lines, element, indent));
            }
            Value::Object(members) if on_one_line.len() > LINE_WIDTH => {
                line(lines, &key);
                write_members(lines, members, indent + 2);
            }
            _ => line(lines, &on_one_line),
        }
    }
}

/// Several objects are for reading and editing one by one, even if they are short.
fn is_list(elements: &[Value]) -> bool {
    elements.len() > 1 && elements.iter().all(Value::is_object)
}

/// An element, with its dash below the key of the array.
fn write_element(lines: &mut String, element: &Value, indent: usize) {
    let on_one_line = format!("{:indent$}- {}", "", flow(element));
    match element {
        Value::Object(members) if on_one_line.len() > LINE_WIDTH => {
            let mut element = block(members, indent + 2);
            element.replace_range(indent..=indent, "-");
            lines.push_str(&element);
        }
        _ => line(lines, &on_one_line),
    }
}

fn line(lines: &mut String, text: &str) {
    // Writing into a string does not fail.
    let _ = writeln!(lines, "{text}");
}

fn text(text: &str) -> String {
    flow(&Value::from(text))
}

/// Text as in JSON, with escapes also for the other line ends of YAML 1.1 and for what it forbids.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

fn is_plain(text: &str) -> bool {
    match text.bytes().next() {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'/') => {
            text.bytes().all(is_plain_byte)
                && !NOT_TEXT.contains(&text.to_ascii_lowercase().as_str())
        }
        Some(b'0'..=b'9') => text.parse::<Ipv4Addr>().is_ok() || is_duration(text),
        _ => false,
    }
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_./-".contains(&byte)
}

/// `1h`, `90s`, `250ms`: not a number in any YAML.
fn is_duration(text: &str) -> bool {
    matches!(text.trim_start_matches(|c: char| c.is_ascii_digit()), "h" | "m" | "s" | "ms")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_value() {
        let texts = [
            "",
            "a",
            "x-api-key",
            "/v1/models/gemini-",
            "127.0.0.1",
            "1h",
            "1",
            "1.5",
            "1e3",
            "0x10",
            "1_000",
            "no",
            "Off",
            "NULL",
            "~",
            "y",
            ".inf",
            "nan",
            "2026-11-21",
            "12:30:45",
            "a: b",
            "a #b",
            "# a",
            "- a",
            "*a",
            "&a",
            "!a",
            "{a}",
            "[a",
            "a]",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"a\"",
            "a\nb",
            "a\\b",
            " a ",
            "\u{7f}\u{85}\u{2028}\u{1f600}",
            "--- a",
            "{{ admin }}",
            "=",
            "<<",
            "null",
            "0o7",
            "1s2",
            "é",
        ];
        for text in texts {
            let document = json!({text: text, "list": [text, {text: [text]}], "long": [text, "-".repeat(LINE_WIDTH)]});
            for written in [flow(&document), block(document.as_object().unwrap(), 4)] {
                assert_eq!(
                    serde_saphyr::from_str::<Value>(&written).unwrap(),
                    document,
                    "{written}"
                );
            }
        }
    }

    #[test]
    fn only_plain_text_is_plain() {
        let value = json!([
            "a-b",
            "/v1",
            "1h",
            "127.0.0.1",
            "127.0.0.1:80",
            "1",
            1,
            true,
            "true",
            "A_KEY",
            "*"
        ]);
        assert_eq!(
            flow(&value),
            r#"[a-b, /v1, 1h, 127.0.0.1, "127.0.0.1:80", "1", 1, true, "true", A_KEY, "*"]"#
        );
    }

    #[test]
    fn what_fits_into_a_line_is_on_one_but_lists_are_lists() {
        let long = "x".repeat(100);
        let value = json!({
            "body": {"max_bytes": 7},
            "pools": [{"name": long, "match": {"path_prefixes": ["/a"]}, "credentials": [{"id": "a"}, {"id": "b"}]}],
        });
        let expected = format!(
            "  body: {{max_bytes: 7}}\n  pools:\n  - name: {long}\n    match: {{path_prefixes: [/a]}}\n    \
             credentials:\n    - {{id: a}}\n    - {{id: b}}\n"
        );
        assert_eq!(block(value.as_object().unwrap(), 2), expected);
    }
}
