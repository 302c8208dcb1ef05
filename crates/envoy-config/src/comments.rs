//! Comments in JSON: `// to the end of the line`, `/* between marks */`, and commas behind the last
//! element, as editors allow them in files for persons.

/// The same text with blanks in the place of comments and of such commas: what remains is JSON, and
/// every line and column is where it was.
pub(super) fn blank(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    // Where the last comma is, if nothing but blanks has followed.
    let mut comma = None;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' => end_of_string(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ => c.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        if c == '/' && length > 1 {
            json.extend(piece.chars().map(|c| if c == '\n' { c } else { ' ' }));
        } else {
            if let (Some(at), '}' | ']') = (comma, c) {
                json.replace_range(at..=at, " ");
            }
            if !c.is_whitespace() {
                comma = (c == ',').then_some(json.len());
            }
            json.push_str(piece);
        }
        rest = after;
    }
    json
}

/// The length of a string, with its quotes.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_str, json};

    use super::*;

    #[test]
    fn comments_and_last_commas_are_blank_and_all_else_stays_where_it_is() {
        for (text, expected) in [
            ("{\"a\": 1} // b", json!({"a": 1})),
            ("/* a\n \" */ [1, /* , */ 2, // ]\n ]", json!([1, 2])),
            (
                r#"{"a": "// b /* c */ ,]", "d": "\\", "e": "\"//"}"#,
                json!({"a": "// b /* c */ ,]", "d": "\\", "e": "\"//"}),
            ),
            ("{\"a\": [1,],}", json!({"a": [1]})),
            ("[\"\u{fc}\", // \u{fc}\n 1]", json!(["\u{fc}", 1])),
        ] {
            let blanked = blank(text);
            assert_eq!(from_str::<Value>(&blanked).unwrap(), expected, "{blanked}");
            assert_eq!(blanked.lines().count(), text.lines().count());
        }
        for text in ["[1,,]", "{\"a\" 1}", "[/]", "/* never"] {
            assert!(from_str::<Value>(&blank(text)).is_err(), "{text}");
        }
    }
}
