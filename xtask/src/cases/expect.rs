//! What a user needs, compared with what happened.

use hyper::header::HeaderMap;
use serde_json::{Value, json};

use super::provider::Arrived;

/// What a client got.
#[derive(Default)]
pub(super) struct Outcome {
    /// `None` if there was no response, or none that ended.
    pub(super) status: Option<u16>,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) frames: Vec<String>,
    pub(super) took: f64,
}

/// The requests of a step: what the clients got, and what arrived at the provider.
pub(super) struct Exchange<'a> {
    pub(super) outcomes: &'a [Outcome],
    pub(super) arrived: &'a [Arrived],
}

/// The expectations that were not met, in words. All but `max_refused` and those about what arrived
/// are for the last request of the step.
pub(super) fn compare(expected: &Value, exchange: &Exchange<'_>) -> Vec<String> {
    let expected = expected.as_object().into_iter().flatten();
    expected
        .filter_map(|(name, wanted)| {
            let got = exchange.differs(name, wanted)?;
            Some(format!("{name}: wanted {wanted}, got {got}"))
        })
        .collect()
}

impl Exchange<'_> {
    /// What there was instead; `None` if it is as wanted.
    fn differs(&self, name: &str, wanted: &Value) -> Option<Value> {
        let last = self.outcomes.last()?;
        let asked: Vec<_> =
            self.arrived.iter().map(|arrived| arrived.credential.as_str()).collect();
        let (is_as_wanted, got) = match name {
            "status" => {
                let status = json!(last.status);
                (*wanted == status || contains(wanted, &status), status)
            }
            "asked" => (*wanted == json!(asked), json!(asked)),
            "not_asked" => (!asked.iter().any(|id| contains(wanted, &json!(id))), json!(asked)),
            "body_has" => (last.body.contains(wanted.as_str()?), json!(last.body)),
            "frames_have" => {
                let wanted = wanted.as_str()?;
                (last.frames.iter().any(|frame| frame.contains(wanted)), json!(last.frames))
            }
            "header" => headers_as_wanted(wanted, &last.headers),
            "retry_after" => {
                let header = last.headers.get("retry-after").and_then(|it| it.to_str().ok());
                (is_between(wanted, header.and_then(|it| it.parse().ok())), json!(header))
            }
            "took" => (is_between(wanted, Some(last.took)), json!(last.took)),
            "max_refused" => {
                let is_refused = |outcome: &&Outcome| outcome.status.is_none_or(|it| it >= 400);
                let refused = self.outcomes.iter().filter(is_refused).count() as u64;
                (wanted.as_u64()? >= refused, json!(refused))
            }
            "upstream_header" => match self.arrived.last() {
                Some(arrived) => headers_as_wanted(wanted, &arrived.headers),
                None => (false, Value::Null),
            },
            "upstream_path" => {
                let path = json!(self.arrived.last().map(|arrived| arrived.path.as_str()));
                (*wanted == path, path)
            }
            "body_length" => {
                let length = json!(self.arrived.last().map(|arrived| arrived.body.len()));
                (*wanted == length, length)
            }
            _ => (false, json!("a name that is not known")),
        };
        (!is_as_wanted).then_some(got)
    }
}

fn contains(list: &Value, value: &Value) -> bool {
    list.as_array().is_some_and(|list| list.contains(value))
}

fn is_between(bounds: &Value, number: Option<f64>) -> bool {
    let bounds = bounds[0].as_f64().zip(bounds[1].as_f64());
    bounds.zip(number).is_some_and(|((low, high), number)| (low..=high).contains(&number))
}

/// Whether all headers have these values; null means that there is none of that name.
fn headers_as_wanted(wanted: &Value, headers: &HeaderMap) -> (bool, Value) {
    let names = wanted.as_object().into_iter().flat_map(|wanted| wanted.keys());
    let got: Value = names
        .map(|name| (name.clone(), json!(headers.get(name).and_then(|it| it.to_str().ok()))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    (*wanted == got, got)
}
