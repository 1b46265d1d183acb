//! A freshly installed data folder, made once and kept as an archive, since installing takes seconds and unpacking does not.
//!
//! One file, not a folder: whatever tidies up temporary files takes it as a whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

use super::{Kind, account::Account, find::Binaries, settings};

/// Unpacks a fresh data folder into a server's folder; makes the archive first if there is none.
pub(crate) fn unpack(kind: Kind, binaries: &Binaries, account: Account, folder: &Path) -> anyhow::Result<()> {
    let cache = cache_folder(account)?;
    let version = version(binaries)?;
    let mut hasher = DefaultHasher::new();
    settings::fingerprint(kind, binaries, &version).hash(&mut hasher);
    let archive = cache.join(format!("{kind}-{:016x}.tar", hasher.finish()));
    if !archive.is_file() {
        let lock = lock(account, &cache.join(format!("{kind}.lock")))?;
        // Another process may have made it while this one waited for the lock.
        if !archive.is_file() {
            make(kind, binaries, account, &archive)?;
        }
        drop(lock);
    }
    let mut tar = account.command(Path::new("tar"));
    run(tar.arg("-xpf").arg(&archive).arg("-C").arg(folder))
}

fn cache_folder(account: Account) -> anyhow::Result<PathBuf> {
    let folder = base_folder().join(format!("tcc-servers-{}", account.user()));
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => account.own(&folder)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
    }
    // Its name can be guessed; what others put there must not be run.
    let owner = fs::symlink_metadata(&folder)?;
    let ours = owner.is_dir() && (owner.uid() == account.user() || owner.uid() == rustix::process::geteuid().as_raw());
    ensure!(ours, "{} belongs to somebody else: remove it", folder.display());
    Ok(folder)
}

/// Where temporary folders go; paths of sockets have a limit, so it must not be too deep.
pub(crate) fn base_folder() -> PathBuf {
    const DEPTH_MAX: usize = 60;
    let usual = std::env::temp_dir();
    if usual.as_os_str().len() <= DEPTH_MAX { usual } else { PathBuf::from("/tmp") }
}

fn lock(account: Account, path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    account.own(path)?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn make(kind: Kind, binaries: &Binaries, account: Account, archive: &Path) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new().prefix("tcc-install-").tempdir_in(base_folder())?;
    account.own(scratch.path())?;
    let data = settings::data_folder(scratch.path());
    let mut install = account.command(&binaries.install);
    run(install.args(kind.install_arguments(&data)).current_dir(scratch.path()).env("LC_ALL", "C"))?;
    let unfinished = scratch.path().join("archive");
    let mut tar = account.command(Path::new("tar"));
    run(tar.arg("-cf").arg(&unfinished).arg("-C").arg(scratch.path()).arg("data"))?;
    fs::rename(&unfinished, archive).with_context(|| format!("cannot make {}", archive.display()))
}

fn version(binaries: &Binaries) -> anyhow::Result<String> {
    let output = Command::new(&binaries.server).arg("--version").output().context("cannot ask a server for its version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{} ended with {}:\n{out}{err}", program.display(), output.status);
    }
    Ok(())
}
