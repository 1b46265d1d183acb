//! How much memory the gateway has, by what the kernel says of it.

use std::{fs, path::Path};

use anyhow::Context;

use crate::harness::Role;

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    /// The most it ever was.
    pub(crate) peak: u64,
}

/// Of the process that this one started for a role.
///
/// # Errors
/// There is no such process.
pub(crate) fn of(role: Role) -> anyhow::Result<Resident> {
    let own = std::process::id().to_string();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        // Whoever ends in between is none that is looked for.
        let (Ok(status), Ok(line)) = (fs::read_to_string(folder.join("status")), fs::read(folder.join("cmdline"))) else {
            continue;
        };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let wanted = words.windows(2).any(|pair| pair == [b"role".as_slice(), role.name().as_bytes()]);
        if wanted && field(&status, "PPid:") == Some(&own) {
            return resident(&status).with_context(|| format!("{} says nothing of its memory", folder.display()));
        }
    }
    anyhow::bail!("{role} is not running: is there a {}?", Path::new("/proc").display())
}

fn resident(status: &str) -> Option<Resident> {
    Some(Resident { now: field(status, "VmRSS:")?.parse().ok()?, peak: field(status, "VmHWM:")?.parse().ok()? })
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_how_much_memory_it_has() {
        let status = "Name:\tx\nPPid:\t7\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(resident(status), Some(Resident { now: 1_024, peak: 2_048 }));
        assert_eq!(field(status, "PPid:"), Some("7"));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
