//! Small C libraries that stand between a process and its C library: built with the compiler that is there, and preloaded. Used by the
//! benchmark, which counts fsyncs, and by the simulation, which makes all randomness its own. Knows nothing of what they do.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// The variable that the dynamic linker reads.
pub const VARIABLE: &str = "LD_PRELOAD";

/// A library in a folder that goes with it.
#[derive(Debug)]
pub struct Library(TempDir);

impl Library {
    /// Its folder, which everybody may read: database servers may run as another user than this process.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// What [`VARIABLE`] must be for a process to have it, beside whatever is preloaded already.
    #[must_use]
    pub fn preload(&self) -> OsString {
        let mut preload = self.0.path().join("library.so").into_os_string();
        let before = std::env::var_os(VARIABLE).unwrap_or_default();
        if !before.is_empty() {
            preload.push(":");
            preload.push(before);
        }
        preload
    }
}

/// Builds a library from its source.
///
/// # Errors
/// There is no C compiler, it does not take the source, or this system knows no preloading.
pub fn build(source: &str) -> anyhow::Result<Library> {
    ensure!(cfg!(target_os = "linux"), "libraries are preloaded on Linux only");
    let folder = tempfile::Builder::new().prefix("tcc-preload-").tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let (text, library) = (folder.path().join("library.c"), folder.path().join("library.so"));
    fs::write(&text, source)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&text).arg("-ldl");
    let output = compiler.output().context("there is no C compiler `cc`")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(&library, Permissions::from_mode(0o755))?;
    Ok(Library(folder))
}
