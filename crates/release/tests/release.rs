//! A release of this project, but for the module: that takes minutes to build, and its bytes do not
//! matter here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn make(directory: &Path) {
    let module = directory.with_extension("wasm");
    fs::write(&module, b"\0asm").unwrap();
    release::make(&project(), &module, directory).unwrap();
}

fn component<'s>(sbom: &'s Value, name: &str) -> Option<&'s Value> {
    sbom["components"].as_array().unwrap().iter().find(|it| it["name"] == name)
}

#[test]
fn the_bill_names_what_is_in_the_module_and_nothing_of_tests_and_tools() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("release");
    make(&directory);
    let sbom = fs::read(directory.join("sbom.cdx.json")).unwrap();
    let sbom: Value = serde_json::from_slice(&sbom).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(sbom["metadata"]["component"]["name"], "session-affinity");
    for name in ["proxy-wasm", "regex", "regex-automata", "serde_json", "body-reader"] {
        let found = component(&sbom, name).unwrap();
        assert_eq!(
            found["purl"],
            format!("pkg:cargo/{name}@{}", found["version"].as_str().unwrap())
        );
    }
    for name in ["tokio", "proptest", "axum", "xtask"] {
        assert!(component(&sbom, name).is_none(), "{name}");
    }
    let licences = fs::read_to_string(directory.join("THIRD-PARTY-LICENSES.txt")).unwrap();
    for component in sbom["components"].as_array().unwrap() {
        let name = component["name"].as_str().unwrap();
        let heading = format!("\n{name} {}: ", component["version"].as_str().unwrap());
        // Crates of this project have its licence.
        assert!(name == "body-reader" || licences.contains(&heading), "{name}");
    }
    assert!(licences.contains("Permission is hereby granted, free of charge"));
}

#[test]
fn the_sums_are_what_sha256sum_finds() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("release");
    make(&directory);
    for sums in ["SHA256SUMS", "session_affinity.wasm.sha256"] {
        let checked = Command::new("sha256sum")
            .args(["--check", "--strict", sums])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

#[test]
fn a_release_is_the_same_wherever_it_is_made() {
    let root = tempfile::tempdir().unwrap();
    let [one, another] = ["one", "another"].map(|name| root.path().join(name));
    make(&one);
    make(&another);
    let sums = |directory: &Path| fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(&one), sums(&another));
    assert!(sums(&one).lines().count() >= 10);
}

#[test]
fn nothing_is_written_over() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("mine"), "").unwrap();
    let error = release::make(&project(), Path::new("absent"), root.path()).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
}
