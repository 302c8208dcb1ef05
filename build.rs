//! Compresses the files of the operator's page, which the module serves.

use std::io::{Result, Write};
use std::path::Path;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

const FILES: [&str; 3] = ["page.html", "page.css", "page.js"];

fn main() -> Result<()> {
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    for file in FILES {
        let source = format!("src/operator/page/{file}");
        println!("cargo::rerun-if-changed={source}");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&fs::read(source)?)?;
        fs::write(Path::new(&out).join(format!("{file}.gz")), encoder.finish()?)?;
    }
    Ok(())
}
