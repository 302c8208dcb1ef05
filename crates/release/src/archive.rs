//! Archives that depend on nothing but their content: files in order, with no times and no owners.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A tar with these files, which everyone may read.
pub(crate) fn tar<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        builder
            .append_data(&mut header, name, bytes)
            .with_context(|| format!("{name} does not fit into an archive"))?;
    }
    builder.into_inner().context("an archive cannot be ended")
}

/// The same bytes with gzip, without a time and a name.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // 255 is "unknown": by itself the header would name the system that made it.
    let mut encoder =
        GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("cannot compress")?;
    encoder.finish().context("cannot compress")
}

/// All files of folders, by their paths in the project.
pub(crate) fn of_folders(project: &Path, folders: &[&str]) -> Result<Vec<u8>> {
    let mut paths = Vec::new();
    for folder in folders {
        let path = project.join(folder);
        if path.is_dir() {
            collect(&path, &mut paths)?;
        }
    }
    let mut files = Vec::new();
    for path in paths {
        let name = path.strip_prefix(project).context("a file is elsewhere")?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((name.to_string_lossy().replace('\\', "/"), bytes));
    }
    files.sort();
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    gzip(&tar(files)?)
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("cannot list a folder")?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_depends_on_its_content_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut archives = Vec::new();
        for project in ["one", "another"] {
            let project = root.path().join(project);
            fs::create_dir_all(project.join("deploy/b")).unwrap();
            let files = ["deploy/b/z.yaml", "deploy/a.yaml"];
            let in_this_order = if archives.is_empty() { files } else { [files[1], files[0]] };
            for file in in_this_order {
                fs::write(project.join(file), file).unwrap();
            }
            archives.push(of_folders(&project, &["deploy", "absent"]).unwrap());
        }
        assert_eq!(archives[0], archives[1]);
        assert_eq!(archives[0][4..8], [0; 4], "no time");
    }
}
