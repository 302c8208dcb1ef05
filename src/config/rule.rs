//! The list `cooldown.rules`: what responses mean where the operator knows better.

use serde_json::Value;

use super::fields::{Fields, Problems};
use crate::signals::{Class, Rule, Scope, Sign};

/// The classes by their words.
pub(super) fn classes() -> Vec<(&'static str, Class)> {
    Class::ALL.into_iter().map(|class| (class.as_str(), class)).collect()
}

pub(super) fn read_all(fields: &mut Fields<'_>) -> Vec<Rule> {
    let elements = fields.array("rules");
    elements.into_iter().filter_map(|(path, value)| read(path, value, fields.problems())).collect()
}

fn read(path: String, value: Value, problems: &mut Problems) -> Option<Rule> {
    let mut fields = Fields::new(path, value, problems);
    let provider = fields.word("provider");
    let status = fields.integer_within("status", 100, 599).map(|status| status as u16);
    let code = fields.string("code").map(Sign::Code);
    let contains = fields.string("contains").map(|text| Sign::Contains(text.to_ascii_lowercase()));
    let header = fields.header_name("header");
    let value = fields.string("value");
    if value.is_some() && header.is_none() {
        fields.problem("value", "expected `header` beside it");
    }
    let header = header.map(|name| Sign::Header(name, value));
    let mut signs: Vec<_> = [code, header, contains].into_iter().flatten().collect();
    if signs.len() > 1 || (signs.is_empty() && status.is_none()) {
        fields.problem("", "expected `status`, and at most one of `code`, `header` and `contains`");
    }
    fields.require("class");
    let class = fields.one_of("class", &classes());
    let scopes = [("credential", Scope::Credential), ("model", Scope::Model)];
    let scope = fields.one_of("scope", &scopes);
    let wait = fields.duration("wait");
    fields.finish();
    let sign = signs.pop().unwrap_or(Sign::Status);
    Some(Rule { provider, status, sign, class: class?, scope, wait })
}
