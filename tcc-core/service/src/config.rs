//! Reads a server's configuration, all of it and before anything is started: a TOML file, and the environment above it.

use std::{collections::HashMap, path::Path};

use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;

/// Why a configuration cannot be used. Its text names the field, or the file and the line. It shows no line of the file and no value
/// that looks like an address: these have passwords in them.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
#[non_exhaustive]
pub struct ConfigError(String);

/// Reads `file` (TOML; none: defaults only), then the environment: with the prefix `TCC`, `TCC__TELEMETRY__FILTER=debug` sets
/// `filter` of section `telemetry`. Fields are lowercase. What neither sets has its default.
///
/// # Errors
/// [`ConfigError`]: the file is missing or is not TOML; a field is unknown, missing, or has a value of a wrong kind.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, env_prefix: &str) -> Result<T, ConfigError> {
    load_from(file, env_prefix, None)
}

fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    variables: Option<HashMap<String, String>>,
) -> Result<T, ConfigError> {
    let environment = Environment::with_prefix(env_prefix).prefix_separator("__").separator("__").source(variables);
    let builder = Config::builder();
    let builder = match file {
        Some(path) => builder.add_source(File::from(path).format(FileFormat::Toml).required(true)),
        None => builder,
    };
    let read = builder.add_source(environment).build().map_err(|error| ConfigError(without_lines(&error.to_string())))?;
    let mut addresses = Vec::new();
    gather_addresses(&read.cache, &mut addresses);
    // Longest first: one may be the beginning of another.
    addresses.sort_by_key(|address| std::cmp::Reverse(address.len()));
    read.try_deserialize().map_err(|error| ConfigError(without(&addresses, error.to_string())))
}

/// What the parser says, without the lines of the file that it quotes (`3 | database_url = ...`).
fn without_lines(text: &str) -> String {
    let is_quoted =
        |line: &str| line.trim_start().trim_start_matches(|digit: char| digit.is_ascii_digit()).trim_start().starts_with('|');
    let mut kept: Vec<_> = text.lines().filter(|line| !is_quoted(line)).collect();
    // It may also quote a part of one.
    kept.retain(|line| !line.contains('@'));
    kept.join("; ")
}

/// Every text that may be the address of something, keys too: a file may have one in the wrong place.
fn gather_addresses(value: &Value, addresses: &mut Vec<String>) {
    let mut gather = |text: &str| {
        if text.contains("://") || text.contains('@') {
            addresses.push(text.to_owned());
        }
    };
    match &value.kind {
        ValueKind::String(text) => gather(text),
        ValueKind::Table(table) => {
            table.keys().for_each(|key| gather(key));
            table.values().for_each(|value| gather_addresses(value, addresses));
        }
        ValueKind::Array(values) => values.iter().for_each(|value| gather_addresses(value, addresses)),
        _ => {}
    }
}

/// The text with each of these left out, as it is or escaped.
fn without(addresses: &[String], text: String) -> String {
    const INSTEAD: &str = "(an address)";
    addresses.iter().fold(text, |text, address| {
        let escaped = format!("{address:?}");
        text.replace(&escaped[1..escaped.len() - 1], INSTEAD).replace(address, INSTEAD)
    })
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::SocketAddr};

    use serde::Deserialize;

    use super::*;
    use crate::telemetry::{Format, Telemetry};

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        listen: SocketAddr,
        drain_ms: u64,
        telemetry: Telemetry,
        peers: std::collections::BTreeMap<String, Peer>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Peer {
        endpoint: String,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                listen: SocketAddr::from(([127, 0, 0, 1], 1)),
                drain_ms: 5_000,
                telemetry: Telemetry::default(),
                peers: [].into(),
            }
        }
    }

    fn load_text(toml: &str, variables: &[(&str, &str)]) -> Result<Sample, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load_from(Some(file.path()), "SAMPLE", Some(variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_file_everything_has_its_default() {
        let sample: Sample = load_from(None, "SAMPLE", Some(HashMap::new())).unwrap();
        assert_eq!((sample.drain_ms, sample.telemetry), (5_000, Telemetry::default()));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let toml = "drain_ms = 7\n[telemetry]\nfilter = 'warn'\n[peers.coupon]\nendpoint = 'http://a'";
        let variables = [
            ("SAMPLE__TELEMETRY__FORMAT", "json"),
            ("SAMPLE__LISTEN", "127.0.0.1:9"),
            ("SAMPLE__DRAIN_MS", "8"),
            ("SAMPLE__PEERS__COUPON__ENDPOINT", "http://b"),
            ("OTHER__DRAIN_MS", "x"),
        ];
        let sample = load_text(toml, &variables).unwrap();
        assert_eq!((sample.listen.port(), sample.drain_ms), (9, 8));
        assert_eq!(sample.telemetry, Telemetry { filter: "warn".to_owned(), format: Format::Json });
        assert_eq!(sample.peers["coupon"].endpoint, "http://b");
    }

    #[test]
    fn errors_name_the_field() {
        let cases: [(&str, &[&str]); 9] = [
            ("drain_ms = 'soon'", &["drain_ms"]),
            ("drain_ms = -1", &["drain_ms"]),
            ("listen = 'nowhere'", &["listen"]),
            ("colour = 'red'", &["colour"]),
            ("[telemetry]\nlevel = 'info'", &["`level`", "`telemetry`"]),
            ("[telemetry]\nfilter = 'a=b=c'", &["telemetry.filter", "a=b=c"]),
            ("[telemetry]\nformat = 'xml'", &["telemetry.format"]),
            ("[peers.stock]\nport = 1", &["`port`", "`peers.stock`"]),
            ("[peers.stock]", &["peers.stock.endpoint"]),
        ];
        for (toml, names) in cases {
            let error = load_text(toml, &[]).unwrap_err();
            assert!(names.iter().all(|name| error.contains(name)), "{toml}: {error}");
        }
        let error = load_text("", &[("SAMPLE__TELEMETRY__LEVEL", "1")]).unwrap_err();
        assert!(error.contains("`level`") && error.contains("`telemetry`"), "{error}");
    }

    #[test]
    fn no_error_repeats_an_address_or_its_password() {
        let url = "postgres://tcc:se@cret@db/log";
        for toml in [
            format!("telemetry = '{url}'"),
            format!("drain_ms = '{url}'"),
            format!("listen = '{url}'"),
            format!("[telemetry]\nfilter = '{url}'\nformat = '{url}'"),
            format!("[peers]\ncoupon = '{url}'"),
            format!("[peers.coupon]\nendpoint = 'postgres://tcc'\n[telemetry]\nformat = '{url}'"),
            "drain_ms = \"tcc:'cret\\\"@db\"".to_owned(),
            format!("[peers.coupon]\n'{url}' = 1"),
            "[telemetry]\nformat = 'tcc:\\cret@db'".to_owned(),
            "[telemetry]\nformat = \"tcc:\\n\\\"cret@db\"".to_owned(),
            // No TOML at all.
            format!("drain_ms = '{url}"),
            format!("drain_ms = {url}"),
            format!("drain_ms = 1 # '{url}'\ndrain_ms = '{url}'"),
            url.to_owned(),
        ] {
            let error = load_text(&toml, &[]).unwrap_err();
            assert!(!error.contains("cret"), "{toml}: {error}");
        }
        let named = load_text(&format!("a = 1\nb = '{url}"), &[]).unwrap_err();
        assert!(named.contains("TOML parse error at line 2"), "{named}");
        let error = load_text("", &[("SAMPLE__DRAIN_MS", url)]).unwrap_err();
        assert!(error.contains("drain_ms") && !error.contains("cret"), "{error}");
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let missing = load::<Sample>(Some(Path::new("/nowhere/sample.toml")), "SAMPLE").unwrap_err().to_string();
        assert!(missing.contains("/nowhere/sample.toml"), "{missing}");
        let broken = load_text("drain_ms = = 1", &[]).unwrap_err();
        assert!(broken.contains("TOML parse error"), "{broken}");
    }
}
