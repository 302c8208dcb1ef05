//! A complete configuration of Envoy from a list of pools: `cargo xtask envoy-config`, or the
//! program `session-affinity-config` where the project is not checked out.
//!
//! Many things have to fit together: names of clusters in the filter, in the route and among the
//! secrets, the filter in the listener and again on every cluster, limits of bodies and of retries.
//! That is error-prone by hand from the second credential on. The shipped configurations come from
//! here, too, so that tests, demo and users have the same.
//!
//! A configuration is only printed when the filter has accepted its part, and a real Envoy all of
//! it. Whoever merges its parts into another configuration lets [`check`] look for what is missing.

mod apis;
mod aws;
pub mod check;
mod clients;
mod clusters;
pub mod command;
mod comments;
mod envoy_gateway;
mod input;
mod istio;
mod next_steps;
mod routes;
pub mod schema;
mod socket_address;
mod split;
mod target;
mod templates;
mod upstream;
mod validate;
mod wiring;
mod yaml;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use envoy_harness::{Mode, Version};

use input::Input;
use serde_json::{Value, json};
use wiring::Wiring;

pub use clients::file as clients_file;
pub use split::{File, Source};
pub use target::Target;

/// A configuration of Envoy.
#[derive(Debug)]
pub struct EnvoyConfig {
    wiring: Wiring,
}

impl EnvoyConfig {
    /// Reads the pools of a file: YAML if its name says so, else JSON. Pools that name no mode have
    /// this one.
    ///
    /// # Errors
    /// All problems of the file, each with its path.
    pub fn read(file: &Path, mode: Mode, target: Target) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let is_yaml = file.extension().is_some_and(|it| it == "yaml" || it == "yml");
        let input = if is_yaml { Input::from_yaml(&text) } else { Input::from_json(&text) };
        let config = input.and_then(|input| Self::new(input, mode, target));
        config.map_err(|problems| {
            let problems = problems.to_string().replace('\n', "\n  ");
            anyhow!("{} cannot be used:\n  {problems}", file.display())
        })
    }

    /// Reads pools, written as JSON; comments are allowed.
    ///
    /// # Errors
    /// All problems, each with its path.
    pub fn parse(json: &str, mode: Mode) -> Result<Self> {
        Self::new(Input::from_json(json)?, mode, Target::Envoy)
    }

    /// Reads pools, written as YAML.
    ///
    /// # Errors
    /// All problems, each with its path.
    pub fn parse_yaml(yaml: &str, mode: Mode) -> Result<Self> {
        Self::new(Input::from_yaml(yaml)?, mode, Target::Envoy)
    }

    fn new(input: Input, mode: Mode, target: Target) -> Result<Self> {
        let wiring = Wiring::new(input, mode, target)
            .map_err(|problems| anyhow!("{}", problems.join("\n")))?;
        Ok(Self { wiring })
    }

    /// The oldest Envoy that has all that it needs.
    pub fn oldest_envoy(&self) -> Version {
        self.wiring.oldest_envoy()
    }

    /// The text for Envoy. `command` is what prints it again; a comment at its head says so.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn yaml(&self, command: &str) -> Result<String> {
        templates::render(&self.wiring, command)
    }

    /// The same as a value, without anchors and comments.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn document(&self) -> Result<Value> {
        parse(&templates::render(&self.wiring, "")?)
    }

    /// The same with the configuration of the filter in files of its own, which come behind the
    /// document: Envoy takes a change of them without touching its listener.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn with_filter_apart(&self, source: &Source) -> Result<(Value, Vec<File>)> {
        let mut document = parse(&templates::render_for_parts(&self.wiring)?)?;
        let files = split::take_filter(&mut document, source);
        split::name_node(&mut document);
        Ok((document, files))
    }

    /// The same in parts that change while Envoy runs; the first is the bootstrap. Keys that are in
    /// no files yet get files that name their variables.
    ///
    /// # Errors
    /// If a template is broken.
    pub fn split(&self, source: &Source) -> Result<Vec<File>> {
        let given = self.wiring.secrets.is_some();
        let directory = match source {
            Source::Files(directory) => directory,
            Source::ControlPlane => "",
        };
        let default = || format!("{directory}/{}", split::SECRETS);
        let secrets = self.wiring.secrets.clone().unwrap_or_else(default);
        let wiring = self.wiring.with_secrets(Some(secrets));
        let mut files = split::split(parse(&templates::render_for_parts(&wiring)?)?, source)?;
        if !given {
            files.extend(wiring.injected().map(|key| {
                File::of_secret(&key.secret, json!({"environment_variable": key.variable}))
            }));
        }
        Ok(files)
    }
}

fn parse(yaml: &str) -> Result<Value> {
    serde_saphyr::from_str_with_options(yaml, yaml::options()).context("the templates are broken")
}

/// The file of a secret: a key, or rather the whole value of its header.
pub fn secret_file(name: &str, value: &str) -> File {
    File::of_secret(name, json!({"inline_string": value}))
}
