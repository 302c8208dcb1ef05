//! A header map: as Envoy keeps it, and as it crosses into the VM.

/// Headers, or trailers, in order. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// The values of a name, with commas between them; `None` if there is none.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let values: Vec<&[u8]> =
            self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &value[..]).collect();
        if values.is_empty() { None } else { Some(values.join(&b',')) }
    }

    /// As [`get`](Self::get), as text; empty if there is none.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.get(name).unwrap_or_default()).into_owned()
    }

    /// Adds a value, beside others of the name.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// Sets the only value of a name, in the place of its first.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let place = self.0.iter().position(|(key, _)| *key == name);
        self.remove(&name);
        let place = place.unwrap_or(self.0.len());
        self.0.insert(place, (name, value.to_vec()));
    }

    /// Removes all values of a name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a number, that of the status; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.text(":status").parse().unwrap_or(0)
    }

    /// As it crosses into the VM: the count, the lengths, then every text with a zero behind it.
    pub(crate) fn serialize(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u32).to_le_bytes().to_vec();
        for (name, value) in &self.0 {
            bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        }
        for (name, value) in &self.0 {
            for text in [name.as_bytes(), value] {
                bytes.extend_from_slice(text);
                bytes.push(0);
            }
        }
        bytes
    }

    /// What [`serialize`](Self::serialize) wrote; `None` for anything else.
    pub(crate) fn deserialize(bytes: &[u8]) -> Option<Self> {
        let (count, mut lengths) = number(bytes)?;
        let mut texts = lengths.get(count.checked_mul(8)?..)?;
        let mut headers = Self::default();
        for _ in 0..count {
            let (name, value);
            (name, lengths) = number(lengths)?;
            (value, lengths) = number(lengths)?;
            let (text, rest) = texts.split_at_checked(name + 1)?;
            let name = String::from_utf8(text.get(..name)?.to_vec()).ok()?;
            let (text, rest) = rest.split_at_checked(value + 1)?;
            headers.add(&name, text.get(..value)?);
            texts = rest;
        }
        Some(headers)
    }
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number) as usize, rest))
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::default();
        for (name, value) in pairs {
            headers.add(name.as_ref(), value.as_ref());
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_comes_back() {
        let headers: Headers = [(":path", "/a"), ("x-empty", ""), ("x", "1")].into_iter().collect();
        assert_eq!(Headers::deserialize(&headers.serialize()), Some(headers.clone()));
        let cut = &headers.serialize()[..30];
        assert_eq!(Headers::deserialize(cut), None);
    }

    #[test]
    fn values_of_one_name_are_read_together_and_replaced_together() {
        let mut headers: Headers = [("Vary", "a"), ("x", "1"), ("vary", "b")].into_iter().collect();
        assert_eq!(headers.text("vary"), "a,b");
        headers.set("vary", b"c");
        assert_eq!(headers, [("vary", "c"), ("x", "1")].into_iter().collect());
        headers.remove("VARY");
        assert_eq!(headers.get("vary"), None);
    }
}
