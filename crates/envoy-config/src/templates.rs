//! The templates, and how values get into them: as YAML, whatever they contain.

use anyhow::{Context, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, context,
};
use serde_json::Map;

use super::wiring::Wiring;
use super::yaml;
use envoy_harness::Mode;

/// One for the whole, one for the heading of each mode, and parts.
const TEMPLATES: [(&str, &str); 17] = [
    ("envoy.yaml", include_str!("templates/envoy.yaml")),
    ("clusters", include_str!("templates/clusters.yaml")),
    ("keys", include_str!("templates/keys.yaml")),
    ("replicas", include_str!("templates/replicas.yaml")),
    ("next-request", include_str!("templates/next-request.yaml")),
    (MIXED, include_str!("templates/mixed.yaml")),
    ("route.yaml", include_str!("templates/route.yaml")),
    ("matcher.yaml", include_str!("templates/matcher.yaml")),
    ("operator.yaml", include_str!("templates/operator.yaml")),
    ("retries.yaml", include_str!("templates/retries.yaml")),
    ("attempt_filter.yaml", include_str!("templates/attempt_filter.yaml")),
    ("secrets.yaml", include_str!("templates/secrets.yaml")),
    ("key_injector.yaml", include_str!("templates/key_injector.yaml")),
    ("aws_signing.yaml", include_str!("templates/aws_signing.yaml")),
    ("clients.yaml", include_str!("templates/clients.yaml")),
    ("jwks.yaml", include_str!("templates/jwks.yaml")),
    ("upstream_filters.yaml", include_str!("templates/upstream_filters.yaml")),
];

/// The heading where pools have several modes.
const MIXED: &str = "mixed";

/// Renders a configuration. `command` is what prints it again.
pub(super) fn render(wiring: &Wiring, command: &str) -> Result<String> {
    render_for(wiring, command, false)
}

/// Renders a configuration of which the filter is going to be taken out: only the first cluster has
/// all of it, the others have its `root_id`. With many credentials all would be too much to read.
pub(super) fn render_for_parts(wiring: &Wiring) -> Result<String> {
    render_for(wiring, "", true)
}

fn render_for(wiring: &Wiring, command: &str, is_apart: bool) -> Result<String> {
    let environment = environment().context("the templates are broken")?;
    let template = environment.get_template("envoy.yaml").context("the templates are broken")?;
    let context = context! {
        command => one_line(command),
        is_apart,
        heading => wiring.mode().map_or(MIXED, Mode::as_str),
        needs => one_line(&wiring.oldest_envoy().to_string()),
        fails_over => wiring.fails_over(),
        injects_keys => wiring.injected().next().is_some(),
        ..Value::from(Serde(wiring))
    };
    template.render(context).context("the templates are broken")
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()?,
    );
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("yaml".into()));
    environment.set_formatter(write_as_yaml);
    environment.add_filter("block", block);
    TEMPLATES.into_iter().try_for_each(|(name, text)| environment.add_template(name, text))?;
    Ok(environment)
}

/// Writes a value of a template on one line, in quotes if necessary.
fn write_as_yaml(
    output: &mut Output<'_>,
    _: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let text = match value.as_str() {
        Some(text) if value.is_safe() => text.to_owned(),
        _ if value.is_undefined() => return Err(ErrorKind::UndefinedError.into()),
        _ => yaml::flow(&serde_json::to_value(value).map_err(unwritable)?),
    };
    output.write_str(&text).map_err(Error::from)
}

/// An object over several lines, indented by this many spaces.
fn block(object: Serde<Map<String, serde_json::Value>>, indent: usize) -> Value {
    Value::from_safe_string(yaml::block(&object, indent))
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, "a value that YAML cannot represent").with_source(error)
}

/// Text for a comment, which ends at the end of its line.
fn one_line(text: &str) -> Value {
    Value::from_safe_string(
        text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_well_formed_and_every_mode_has_a_heading() {
        let environment = environment().unwrap();
        for mode in Mode::ALL {
            environment.get_template(mode.as_str()).unwrap();
        }
    }

    #[test]
    fn values_cannot_break_out() {
        let environment = environment().unwrap();
        for (value, rendered) in
            [("x-api-key", "a: {b: x-api-key}"), ("x}\nadmin: y", r#"a: {b: "x}\nadmin: y"}"#)]
        {
            let template = "a: {b: {{ value }}}";
            assert_eq!(environment.render_str(template, context! { value }).unwrap(), rendered);
        }
        assert!(environment.render_str("{{ nothing }}", ()).is_err());
    }

    #[test]
    fn a_comment_ends_at_the_end_of_its_line() {
        assert_eq!(one_line("a\nadmin: {}\u{2028}\u{85}").as_str(), Some("a admin: {}  "));
    }
}
