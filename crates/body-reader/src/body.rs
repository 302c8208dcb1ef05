//! What one pass over a request body yields: the places of the few values that decide.
//!
//! The paths to look for are known from the configuration. A path counts where it is first found
//! whole: an object without the rest of the path is passed over, and a later one of the same name
//! is tried; a `null` at the full path ends the search. Only paths are followed, so what looks
//! alike inside message texts and tool results does not count. Nothing is copied or unescaped here.

use crate::json::{Kind, Value};

/// Paths to look for, as a tree: members that paths share are walked once.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    root: Node,
    count: usize,
}

/// A path among [`Paths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(usize);

#[derive(Clone, Debug, Default)]
struct Node {
    path: Option<PathId>,
    /// Shorter names before longer ones: a name is compared with those of its length only.
    children: Vec<(String, Node)>,
    /// The lengths of the names, as bits. The last one is that of all longer names.
    lengths: u64,
}

impl Node {
    fn longest(&self) -> usize {
        self.children.last().map_or(0, |(name, _)| name.len())
    }

    fn child(&self, key: &[u8]) -> Option<&Self> {
        if self.lengths & length_bit(key.len()) == 0 {
            return None;
        }
        let shorter = self.children.partition_point(|(name, _)| name.len() < key.len());
        let same = self.children.get(shorter..)?.iter();
        same.take_while(|(name, _)| name.len() == key.len())
            .find(|(name, _)| name.as_bytes() == key)
            .map(|(_, child)| child)
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

impl Paths {
    /// Adds a path of member names; a name that is a number also names an element of an array. The
    /// same path has the same id.
    pub fn add<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> PathId {
        let mut node = &mut self.root;
        for name in names {
            let at = match node.children.iter().position(|(child, _)| child == name) {
                Some(at) => at,
                None => {
                    let at = node.children.partition_point(|(other, _)| other.len() <= name.len());
                    node.children.insert(at, (name.to_owned(), Node::default()));
                    node.lengths |= length_bit(name.len());
                    at
                }
            };
            match node.children.get_mut(at) {
                Some((_, child)) => node = child,
                None => break,
            }
        }
        let next = PathId(self.count);
        let id = *node.path.get_or_insert(next);
        if id == next {
            self.count += 1;
        }
        id
    }
}

/// Repetitions that are remembered.
const MOST_REPEATED: usize = 64;

/// The values found in a body. One that is absent, or not JSON, has none.
#[derive(Clone, Debug, Default)]
pub struct Body<'a> {
    bytes: &'a [u8],
    values: Vec<Option<Value<'a>>>,
    repeated: Vec<PathId>,
    is_settled: bool,
}

impl<'a> Body<'a> {
    /// Reads a body, whole or cut off at any byte.
    pub fn read(paths: &Paths, bytes: &'a [u8]) -> Self {
        let values = vec![None; paths.count];
        let mut body = Self { bytes, values, repeated: Vec::new(), is_settled: false };
        if let Some(document) = Value::document(bytes) {
            body.walk(&paths.root, document);
        }
        body
    }

    /// Reads the first bytes of a body of which no more is looked at.
    pub fn read_beginning(paths: &Paths, bytes: &'a [u8]) -> Self {
        Self { bytes: b"", is_settled: true, ..Self::read(paths, bytes) }
    }

    /// Reads a body of a request whose session the headers settle.
    pub fn read_settled(paths: &Paths, bytes: &'a [u8]) -> Self {
        Self { is_settled: true, ..Self::read(paths, bytes) }
    }

    /// Whether the headers settle the session, so that nothing about it may depend on how much of
    /// the body was read.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// All of it that was read; nothing if that was only the beginning.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value at a path.
    pub fn get(&self, path: PathId) -> Option<Value<'a>> {
        self.values.get(path.0).copied().flatten()
    }

    /// Whether there are several values at a path: then another reader may take another one.
    pub fn is_repeated(&self, path: PathId) -> bool {
        self.repeated.contains(&path)
    }

    /// The depth of this recursion is that of the configured paths, not of the document.
    fn walk(&mut self, node: &Node, value: Value<'a>) {
        match value.kind() {
            Kind::Object => {
                let (longest, mut scratch) = (node.longest(), Vec::new());
                for (key, member) in value.raw_members() {
                    let key = key.short_text(longest, &mut scratch);
                    if let Some(child) = key.and_then(|key| node.child(key)) {
                        self.take(child, member);
                    }
                }
            }
            Kind::Array => {
                for (name, child) in &node.children {
                    if let Some(element) =
                        name.parse().ok().and_then(|index| value.elements().nth(index))
                    {
                        self.take(child, element);
                    }
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, node: &Node, value: Value<'a>) {
        if let Some(PathId(at)) = node.path
            && let Some(place) = self.values.get_mut(at)
        {
            match place {
                None => *place = Some(value),
                Some(_) if self.repeated.len() < MOST_REPEATED => self.repeated.push(PathId(at)),
                Some(_) => {}
            }
        }
        if !node.children.is_empty() {
            self.walk(node, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str, path: &[&str]) -> Option<String> {
        let mut paths = Paths::default();
        paths.add(["other"]);
        let id = paths.add(path.iter().copied());
        assert_eq!(paths.add(path.iter().copied()), id, "the same path has the same id");
        let value = Body::read(&paths, body.as_bytes()).get(id)?;
        Some(String::from_utf8_lossy(&value.text()).into_owned())
    }

    #[test]
    fn the_first_whole_path_counts() {
        assert_eq!(
            found(r#"{"a":{},"a":{"b":"1"},"a":{"b":"2"}}"#, &["a", "b"]).as_deref(),
            Some("1")
        );
        assert_eq!(found(r#"{"a":"x","a":{"b":"1"}}"#, &["a", "b"]).as_deref(), Some("1"));
        assert_eq!(
            found(r#"{"a":{"b":null},"a":{"b":"2"}}"#, &["a", "b"]).as_deref(),
            Some(""),
            "null ends the search"
        );
    }

    #[test]
    fn a_path_may_end_where_another_goes_on() {
        let mut paths = Paths::default();
        let (whole, part) = (paths.add(["c"]), paths.add(["c", "id"]));
        let body = Body::read(&paths, br#"{"c":{"id":"1"}}"#);
        assert_eq!(body.get(part).map(|value| value.text().into_owned()), Some(b"1".to_vec()));
        assert_eq!(body.get(whole).map(Value::kind), Some(Kind::Object));
    }

    #[test]
    fn numbers_name_elements_of_arrays() {
        assert_eq!(found(r#"{"a":[{"b":"0"},{"b":"1"}]}"#, &["a", "1", "b"]).as_deref(), Some("1"));
        assert_eq!(found(r#"{"a":{"1":{"b":"x"}}}"#, &["a", "1", "b"]).as_deref(), Some("x"));
        assert_eq!(found(r#"{"a":[{"b":"0"}]}"#, &["a", "b"]), None);
    }

    #[test]
    fn names_with_dots_are_ordinary_names() {
        assert_eq!(found(r#"{"a.b":"1"}"#, &["a", "b"]), None);
        assert_eq!(found(r#"{"a.b":"1"}"#, &["a.b"]).as_deref(), Some("1"));
    }
}
