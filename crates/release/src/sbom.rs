//! What the module was built from, as a bill of materials in CycloneDX 1.5.

use anyhow::{Context, Result};
use cargo_metadata::Package;
use cyclonedx_bom::external_models::normalized_string::NormalizedString;
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;

use crate::packages::Packages;

pub(crate) fn of(packages: &Packages) -> Result<Vec<u8>> {
    let root = packages.root().context("the module has a package")?;
    let others = packages.with_needs().filter(|(package, _)| package.id != root.id);
    let components: Result<Vec<_>> = others.map(|(package, _)| component(package)).collect();
    let dependencies = packages.with_needs().map(|(package, needs)| Dependency {
        dependency_ref: reference(package),
        dependencies: needs.into_iter().map(reference).collect(),
    });
    let bom = Bom {
        // A new number for every build would be no number of the release.
        serial_number: None,
        metadata: Some(Metadata { component: Some(component(root)?), ..Metadata::default() }),
        components: Some(Components(components?)),
        dependencies: Some(Dependencies(dependencies.collect())),
        ..Bom::default()
    };
    let mut bytes = Vec::new();
    bom.output_as_json(&mut bytes, SpecVersion::V1_5)
        .context("the bill of materials is no JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package) -> Result<Component> {
    let name = package.name.as_str();
    let version = package.version.to_string();
    let kind = if name == "session-affinity" {
        Classification::Application
    } else {
        Classification::Library
    };
    let mut component = Component::new(kind, name, &version, Some(reference(package)));
    component.purl = Some(Purl::new("cargo", name, &version).context("a name is no package")?);
    component.description = package.description.as_deref().map(NormalizedString::new);
    component.licenses = package.license.as_deref().map(|licence| {
        let expression = SpdxExpression::new(&licence.replace('/', " OR "));
        Licenses(vec![LicenseChoice::Expression(expression)])
    });
    Ok(component)
}
