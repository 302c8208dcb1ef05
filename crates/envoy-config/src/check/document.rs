//! A YAML or JSON document in which every value knows its line, and a cursor that knows its path.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A value with its line.
#[derive(Debug)]
pub(super) struct Node {
    line: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(Value),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads all documents of a file.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, serde_saphyr::Error> {
        let found: Vec<Spanned<Kind>> =
            serde_saphyr::from_multiple_with_options(text, crate::yaml::options())?;
        Ok(found.into_iter().map(Self::from).collect())
    }

    fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Array(elements) => elements.iter().map(Self::value).collect(),
            Kind::Object(members) => {
                let members = members.iter().map(|(key, node)| (key.clone(), node.value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

impl From<Spanned<Kind>> for Node {
    fn from(spanned: Spanned<Kind>) -> Self {
        Self { line: spanned.referenced.line(), kind: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element::<Spanned<Kind>>()? {
            elements.push(element.into());
        }
        Ok(Kind::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = access.next_entry::<String, Spanned<Kind>>()? {
            members.push((key, value.into()));
        }
        Ok(Kind::Object(members))
    }
}

/// A place in a document, which need not exist: then it has the line of what should contain it.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'d> {
    pub(super) file: &'d str,
    pub(super) path: String,
    pub(super) line: u64,
    node: Option<&'d Node>,
}

impl<'d> Cursor<'d> {
    pub(super) fn new(file: &'d str, root: &'d Node) -> Self {
        Self { file, path: String::new(), line: root.line, node: Some(root) }
    }

    /// A member, or one of a member: `vm_config.code`. JSON from control planes has camelCase.
    pub(super) fn get(&self, path: &str) -> Self {
        path.split('.').fold(self.clone(), |cursor, name| cursor.member(name))
    }

    fn member(&self, name: &str) -> Self {
        let camel = camel_case(name);
        let found = self.members().find(|(key, _)| *key == name || *key == camel);
        match found {
            Some((_, cursor)) => cursor,
            None => Self { path: join(&self.path, name), node: None, ..self.clone() },
        }
    }

    /// The members of an object, by their names.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'d str, Self)> + use<'d> {
        let (file, path) = (self.file, self.path.clone());
        let members = match self.node.map(|node| &node.kind) {
            Some(Kind::Object(members)) => members.as_slice(),
            _ => &[],
        };
        members.iter().map(move |(key, node)| {
            let path = join(&path, key);
            (key.as_str(), Self { file, path, line: node.line, node: Some(node) })
        })
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> impl Iterator<Item = Self> + use<'d> {
        let (file, path) = (self.file, self.path.clone());
        let elements = match self.node.map(|node| &node.kind) {
            Some(Kind::Array(elements)) => elements.as_slice(),
            _ => &[],
        };
        elements.iter().enumerate().map(move |(index, node)| Self {
            file,
            path: format!("{path}[{index}]"),
            line: node.line,
            node: Some(node),
        })
    }

    /// Whether it is there, and not null.
    pub(super) fn exists(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.kind, Kind::Scalar(Value::Null)))
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        match &self.node?.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.text() == Some(text)
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self.node.map(|node| &node.kind), Some(Kind::Scalar(Value::Bool(true))))
    }

    /// A number. Control planes write 64 bits as text.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.node?.kind {
            Kind::Scalar(Value::Number(number)) => number.as_f64(),
            Kind::Scalar(Value::String(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// The seconds of a duration.
    pub(super) fn seconds(&self) -> Option<f64> {
        match self.text() {
            Some(text) => text.strip_suffix('s')?.parse().ok(),
            None if self.get("seconds").exists() => self.get("seconds").number(),
            None => None,
        }
    }

    /// As a value, null if it is not there.
    pub(super) fn value(&self) -> Value {
        self.node.map_or(Value::Null, Node::value)
    }

    /// All strings in it, however deep.
    pub(super) fn texts(&self) -> Vec<Self> {
        let mut texts = Vec::new();
        self.collect_texts(&mut texts);
        texts
    }

    fn collect_texts(&self, texts: &mut Vec<Self>) {
        if self.text().is_some() {
            texts.push(self.clone());
        }
        self.members().for_each(|(_, member)| member.collect_texts(texts));
        self.elements().for_each(|element| element.collect_texts(texts));
    }

    /// The last part of the type of an `Any`.
    pub(super) fn type_name(&self) -> &'d str {
        last_part(self.get("@type").text().unwrap_or_default())
    }

    /// What `typed_config` holds and its type, also where it comes as a `TypedStruct`.
    pub(super) fn typed_config(&self) -> (&'d str, Self) {
        let config = self.get("typed_config");
        match config.type_name() {
            "TypedStruct" => {
                let name = last_part(config.get("type_url").text().unwrap_or_default());
                (name, config.get("value"))
            }
            name => (name, config),
        }
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit(['.', '/']).next().unwrap_or_default()
}

fn join(path: &str, name: &str) -> String {
    let name = match name {
        name if name.contains(['.', '/', ' ']) => format!("[{name:?}]"),
        name if path.is_empty() => name.to_owned(),
        name => format!(".{name}"),
    };
    format!("{path}{name}")
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node {
        Node::parse(text).unwrap().remove(0)
    }

    #[test]
    fn a_place_has_a_path_and_a_line_whether_it_exists_or_not() {
        let root = parse("a:\n  b:\n  - c: 1\n  - {d: \"2\"}\n");
        let cursor = Cursor::new("f", &root).get("a.b").elements().nth(1).unwrap();
        let (there, missing) = (cursor.get("d"), cursor.get("e.f"));
        assert_eq!((there.path.as_str(), there.line, there.number()), ("a.b[1].d", 4, Some(2.0)));
        assert_eq!((missing.path.as_str(), missing.line), ("a.b[1].e.f", 4));
        assert!(there.exists() && !missing.exists());
    }

    #[test]
    fn an_alias_has_its_own_line_and_the_value_of_its_anchor() {
        let root = parse("a: &x {b: 1}\nc: *x\n");
        let cursor = Cursor::new("f", &root).get("c");
        assert_eq!((cursor.line, cursor.get("b").number()), (2, Some(1.0)));
    }

    #[test]
    fn json_of_control_planes_is_read_too() {
        let root = parse(
            r#"{"routeConfig": {"requestHeadersToRemove": ["x"]}, "idleTimeout": {"seconds": "5"}}"#,
        );
        let cursor = Cursor::new("f", &root);
        assert!(cursor.get("route_config.request_headers_to_remove").elements().next().is_some());
        assert_eq!(cursor.get("idle_timeout").seconds(), Some(5.0));
    }

    #[test]
    fn a_typed_struct_is_what_it_holds() {
        let text = r#"typed_config: {"@type": a/udpa.type.v1.TypedStruct, type_url: b/envoy.Wasm, value: {config: 1}}"#;
        let root = parse(text);
        let (name, config) = Cursor::new("f", &root).typed_config();
        assert_eq!((name, config.get("config").number()), ("Wasm", Some(1.0)));
    }
}
