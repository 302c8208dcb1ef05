//! JSON, written piece by piece.

/// A document that grows. Commas come by themselves.
#[derive(Debug, Default)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// Begins an object or an array.
    pub(super) fn open(&mut self, bracket: char) -> &mut Self {
        self.separate();
        self.0.push(bracket);
        self
    }

    pub(super) fn close(&mut self, bracket: char) -> &mut Self {
        self.0.push(bracket);
        self
    }

    /// A key; its value comes next.
    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.text(name);
        self.0.push(':');
        self
    }

    #[inline(never)]
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.separate();
        self.0.push('"');
        for letter in text.chars() {
            match letter {
                '"' | '\\' => {
                    self.0.push('\\');
                    self.0.push(letter);
                }
                // None of what is shown has any.
                ..' ' => self.0.push(' '),
                _ => self.0.push(letter),
            }
        }
        self.0.push('"');
        self
    }

    #[inline(never)]
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.separate();
        self.0.push_str(&number.to_string());
        self
    }

    pub(super) fn boolean(&mut self, value: bool) -> &mut Self {
        self.separate();
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.separate();
        self.0.push_str("null");
        self
    }

    /// A few digits of a hash.
    pub(super) fn tag(&mut self, tag: u32) -> &mut Self {
        self.text(&hex(tag))
    }

    fn separate(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with(['{', '[', ':']) {
            self.0.push(',');
        }
    }
}

/// A tag as logs show it: eight hexadecimal digits.
pub(super) fn hex(tag: u32) -> String {
    format!("{tag:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let mut json = Json::default();
        json.open('{').key("a").open('[').number(0).number(u64::MAX).null().close(']');
        json.key("b\"\\\n").text("[:{\u{1f}é").key("c").open('{').close('}').key("d").tag(0x1f);
        json.close('}');
        let value: serde_json::Value = serde_json::from_slice(&json.into_bytes()).unwrap();
        let expected = serde_json::json!({
            "a": [0, u64::MAX, null], "b\"\\ ": "[:{ é", "c": {}, "d": "0000001f",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_text_that_ends_like_a_beginning_is_followed_by_a_comma() {
        let mut json = Json::default();
        json.open('[').text("[").text(":").close(']');
        assert_eq!(json.into_bytes(), br#"["[",":"]"#);
    }
}
