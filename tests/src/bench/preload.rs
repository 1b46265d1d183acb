//! The small library that counts fsyncs, preloaded into this process started anew, whose children (servers, databases) inherit it.
//! Without a compiler fsyncs are not counted, and the report says so.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use tcc_preload::Library;

const SOURCE: &str = include_str!("preload/fsync.c");
/// Where the counters are; that it is set is how the process that was started anew knows itself.
const FILE_VARIABLE: &str = "TCC_BENCH_FSYNC_FILE";
const DELAY_VARIABLE: &str = "TCC_BENCH_FSYNC_DELAY_US";
const COUNTERS: &str = "counters";
const COUNTERS_BYTES: u64 = 16;

/// Where fsyncs of this process and its children are counted; `None`: they are not.
pub(crate) fn counted_in() -> Option<PathBuf> {
    std::env::var_os(FILE_VARIABLE).map(PathBuf::from)
}

/// Builds it, with counters that everybody may write: database servers may run as another user than this process.
///
/// # Errors
/// There is no C compiler, or this system knows no preloading.
pub(crate) fn build() -> anyhow::Result<Library> {
    let library = tcc_preload::build(SOURCE)?;
    let counters = library.folder().join(COUNTERS);
    File::create(&counters)?.set_len(COUNTERS_BYTES)?;
    fs::set_permissions(&counters, Permissions::from_mode(0o666))?;
    Ok(library)
}

/// Runs this very command again with the library, and waits for its end.
///
/// # Errors
/// This binary cannot be started.
pub(crate) async fn start_anew(library: &Library, delay_us: u32) -> anyhow::Result<ExitCode> {
    let mut anew = tokio::process::Command::new(std::env::current_exe()?);
    anew.args(std::env::args_os().skip(1));
    anew.env(tcc_preload::VARIABLE, library.preload());
    anew.env(FILE_VARIABLE, library.folder().join(COUNTERS)).env(DELAY_VARIABLE, delay_us.to_string());
    let status = anew.kill_on_drop(true).status().await.context("this binary cannot be started anew")?;
    // Ended by a signal: a failure as any other.
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)))
}
