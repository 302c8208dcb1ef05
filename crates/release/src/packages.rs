//! The packages that the module is built from: not those of tests and tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

const TARGET: &str = "wasm32-wasip1";
const ROOT: &str = "session-affinity";

/// The module's own package and all that it is built from, in the order of their names.
pub(crate) struct Packages {
    packages: Vec<Package>,
    /// What each needs, by their places in the list.
    needs: BTreeMap<usize, BTreeSet<usize>>,
    root: usize,
}

impl Packages {
    pub(crate) fn of_module(project: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(project.join("Cargo.toml"))
            .other_options(["--locked".to_owned(), format!("--filter-platform={TARGET}")])
            .exec()
            .context("cargo metadata failed")?;
        let root = metadata
            .packages
            .iter()
            .find(|package| package.name.as_str() == ROOT)
            .context("the workspace has no filter")?
            .id
            .clone();
        let reached = reached_from(&metadata, &root)?;
        let mut packages: Vec<_> =
            metadata.packages.iter().filter(|it| reached.contains_key(&it.id)).cloned().collect();
        packages
            .sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
        let places: BTreeMap<_, _> =
            packages.iter().enumerate().map(|(at, package)| (package.id.clone(), at)).collect();
        let place = |id: &PackageId| places.get(id).copied();
        let needs = reached.iter().filter_map(|(id, needed)| {
            Some((place(id)?, needed.iter().filter_map(place).collect()))
        });
        let (needs, root) = (needs.collect(), place(&root).context("the filter is reached")?);
        Ok(Self { packages, needs, root })
    }

    pub(crate) fn root(&self) -> Option<&Package> {
        self.packages.get(self.root)
    }

    pub(crate) fn version(&self) -> String {
        self.root().map(|root| root.version.to_string()).unwrap_or_default()
    }

    /// All but the module's own package and those of its workspace.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_some())
    }

    /// All, with what each needs.
    pub(crate) fn with_needs(&self) -> impl Iterator<Item = (&Package, Vec<&Package>)> {
        self.packages.iter().enumerate().map(|(at, package)| {
            let needed = self.needs.get(&at).into_iter().flatten();
            (package, needed.filter_map(|at| self.packages.get(*at)).collect())
        })
    }
}

/// All packages that are built for one, with what each of them needs.
fn reached_from(
    metadata: &Metadata,
    root: &PackageId,
) -> Result<BTreeMap<PackageId, BTreeSet<PackageId>>> {
    let resolve = metadata.resolve.as_ref().context("cargo resolved nothing")?;
    let mut reached = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        if reached.contains_key(&id) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == id);
        let needed: BTreeSet<_> = node
            .with_context(|| format!("cargo did not resolve {id}"))?
            .deps
            .iter()
            .filter(|it| it.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development))
            .map(|dependency| dependency.pkg.clone())
            .collect();
        open.extend(needed.iter().cloned());
        reached.insert(id, needed);
    }
    Ok(reached)
}
