//! The four databases of a cluster: where they are, who made them, and how they go.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};
use tcc_servers::{Kind, Options, Server};
use tcc_types::{Entropy, SystemEntropy};

use super::{
    ClusterConfig, Folder, Store,
    config::{Owner, ServerChoice},
};

/// What databases on a server of the user's are called if its URL names none.
const NAME: &str = "tcc";

/// Where each owner keeps its rows.
#[derive(Debug)]
pub(crate) struct Databases {
    store: Store,
    urls: [String; 4],
    place: Place,
}

#[derive(Debug)]
enum Place {
    Files(PathBuf),
    Private(Private),
    /// Somebody else's server; what was made for a temporary cluster is dropped with it.
    Given {
        server: BaseUrl,
        names: [String; 4],
        temporary: bool,
    },
}

#[derive(Debug)]
enum Private {
    Shared(&'static Server),
    Own(Arc<Server>),
}

impl Databases {
    pub(crate) async fn open(config: &ClusterConfig, folder: &Path) -> anyhow::Result<Self> {
        let store = config.store;
        let Some(kind) = store.kind() else {
            let file = |owner| format!("sqlite://{}", database_file(folder, owner).display());
            return Ok(Self { store, urls: Owner::ALL.map(file), place: Place::Files(folder.to_owned()) });
        };
        match &config.server {
            ServerChoice::Shared => Self::on_private(store, move || Ok(Private::Shared(tcc_servers::shared(kind)))).await,
            ServerChoice::Own => {
                let options = Options { settings: config.server_settings.clone(), ..Options::default() };
                let start = move || Ok(Private::Own(Arc::new(Server::start_with(kind, &options)?)));
                Self::on_private(store, start).await
            }
            ServerChoice::At(url) => {
                let server = BaseUrl::parse(url)?;
                ensure!(server.kind == kind, "{store} is to be used, but the server's URL begins with {}:", server.scheme);
                let temporary = config.folder == Folder::Temporary;
                Self::on_given(store, server, temporary).await
            }
        }
    }

    async fn on_private(
        store: Store,
        start: impl FnOnce() -> anyhow::Result<Private> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let make = move || {
            let private = start()?;
            let [log, orders, inventory, coupon] = Owner::ALL.map(|_| private.server().try_create_database());
            let urls = [log?, orders?, inventory?, coupon?];
            Ok(Self { store, urls, place: Place::Private(private) })
        };
        tokio::task::spawn_blocking(make).await.context("starting a database server failed")?
    }

    async fn on_given(store: Store, server: BaseUrl, temporary: bool) -> anyhow::Result<Self> {
        let own = if temporary { format!("_{:08x}", SystemEntropy.next_u64() >> 32) } else { String::new() };
        let names = Owner::ALL.map(|owner| format!("{}{own}_{}", server.name, owner.name()));
        for name in &names {
            server.create_if_missing(name).await?;
        }
        let urls = names.each_ref().map(|name| server.of(name));
        Ok(Self { store, urls, place: Place::Given { server, names, temporary } })
    }

    pub(crate) const fn store(&self) -> Store {
        self.store
    }

    pub(crate) fn url(&self, owner: Owner) -> &str {
        &self.urls[owner.index()]
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        match &self.place {
            Place::Private(private) => Some(private.server()),
            Place::Files(_) | Place::Given { .. } => None,
        }
    }

    /// The private server, if it is this cluster's alone.
    pub(crate) fn own_server(&self) -> Option<Arc<Server>> {
        match &self.place {
            Place::Private(Private::Own(server)) => Some(Arc::clone(server)),
            Place::Private(Private::Shared(_)) | Place::Files(_) | Place::Given { .. } => None,
        }
    }

    /// Where the private server listens, if there is one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.server().map(|server| SocketAddr::from(([127, 0, 0, 1], server.port())))
    }

    /// Where they are, for people: no password.
    pub(crate) fn whereabouts(&self) -> String {
        match &self.place {
            Place::Files(folder) => format!("SQLite in {}", folder.display()),
            Place::Private(private) => {
                format!("{} of its own on port {}, gone when this ends", self.store, private.server().port())
            }
            Place::Given { server, names, .. } => format!("{} at {}: {}", self.store, server.host(), names.join(", ")),
        }
    }

    /// Empties one of them as a lost disk would: whoever has it open must be stopped before (SQLite), or loses its connections.
    pub(crate) async fn wipe(&self, owner: Owner) -> anyhow::Result<()> {
        let url = match &self.place {
            Place::Files(folder) => {
                let file = database_file(folder, owner);
                for end in ["", "-wal", "-shm"] {
                    let path = PathBuf::from(format!("{}{end}", file.display()));
                    match fs::remove_file(&path) {
                        Ok(()) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
                    }
                }
                return Ok(());
            }
            Place::Private(_) | Place::Given { .. } => BaseUrl::parse(self.url(owner))?,
        };
        url.drop_database(&url.name).await?;
        url.create_if_missing(&url.name).await
    }

    /// Removes what was made for a temporary cluster on somebody else's server.
    pub(crate) async fn drop_temporary(&self) -> anyhow::Result<()> {
        if let Place::Given { server, names, temporary: true } = &self.place {
            for name in names {
                server.drop_database(name).await?;
            }
        }
        Ok(())
    }
}

impl Private {
    fn server(&self) -> &Server {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// The file of one database in a cluster's folder.
pub(crate) fn database_file(folder: &Path, owner: Owner) -> PathBuf {
    folder.join(format!("{}.db", owner.name()))
}

/// The store that a database server's URL belongs to.
///
/// # Errors
/// It is no URL of a database server; its password is not repeated.
pub fn store_of_url(url: &str) -> anyhow::Result<Store> {
    Ok(match BaseUrl::parse(url)?.kind {
        Kind::Postgres => Store::Postgres,
        Kind::Mysql => Store::Mysql,
    })
}

/// The same database, reached at another address.
pub(crate) fn through(url: &str, address: SocketAddr) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or_else(String::new, |(user, _)| format!("{user}@"));
    format!("{scheme}://{user}{address}/{path}")
}

/// A server's URL, whose database part is a name to begin others with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    kind: Kind,
    scheme: String,
    authority: String,
    name: String,
    query: String,
}

impl BaseUrl {
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        // The URL has a password: it is not repeated.
        let (scheme, rest) = url.split_once("://").context("a database URL begins with postgres:// or mysql://")?;
        let kind = match scheme {
            "postgres" | "postgresql" => Kind::Postgres,
            "mysql" | "mariadb" => Kind::Mysql,
            other => bail!("{other}: is no database server; use postgres:// or mysql://"),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, format!("?{query}")),
            None => (rest, String::new()),
        };
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!authority.is_empty(), "a database URL names its host, as in {scheme}://user:password@host");
        let fits = |name: &str| name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
        ensure!(fits(name) && name.len() <= 32, "{name:?}: the name of databases is made of a-z, 0-9 and _, at most 32");
        let name = if name.is_empty() { NAME } else { name };
        let (scheme, authority, name) = (scheme.to_owned(), authority.to_owned(), name.to_owned());
        Ok(Self { kind, scheme, authority, name, query })
    }

    fn of(&self, database: &str) -> String {
        format!("{}://{}/{database}{}", self.scheme, self.authority, self.query)
    }

    fn host(&self) -> &str {
        self.authority.rsplit_once('@').map_or(self.authority.as_str(), |(_, host)| host)
    }

    async fn create_if_missing(&self, name: &str) -> anyhow::Result<()> {
        let sql = format!("CREATE DATABASE {name}");
        match self.run(&sql).await {
            Ok(()) => Ok(()),
            // Whether it is there, its owner will see; the server's own words for it differ.
            Err(error) if self.exists(name).await => {
                drop(error);
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("cannot create the database {name} at {}", self.host())),
        }
    }

    async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let sql = match self.kind {
            Kind::Postgres => format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            Kind::Mysql => format!("DROP DATABASE IF EXISTS {name}"),
        };
        self.run(&sql).await.with_context(|| format!("cannot drop the database {name} at {}", self.host()))
    }

    async fn exists(&self, name: &str) -> bool {
        match self.kind {
            Kind::Postgres => PgConnection::connect(&self.of(name)).await.is_ok(),
            Kind::Mysql => MySqlConnection::connect(&self.of(name)).await.is_ok(),
        }
    }

    async fn run(&self, sql: &str) -> sqlx::Result<()> {
        match self.kind {
            Kind::Postgres => {
                let mut server = PgConnection::connect(&self.of("postgres")).await?;
                server.execute(AssertSqlSafe(sql)).await?;
                server.close().await
            }
            Kind::Mysql => {
                let mut server = MySqlConnection::connect(&self.of("")).await?;
                server.execute(AssertSqlSafe(sql)).await?;
                server.close().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_url_gives_the_url_of_each_of_its_databases() -> anyhow::Result<()> {
        let url = BaseUrl::parse("postgres://ann:se%40cret@db.example:5433/shop?sslmode=require")?;
        assert_eq!((url.kind, url.name.as_str(), url.host()), (Kind::Postgres, "shop", "db.example:5433"));
        assert_eq!(url.of("shop_log"), "postgres://ann:se%40cret@db.example:5433/shop_log?sslmode=require");
        for bare in ["mysql://ann@db.example", "mariadb://ann@db.example/"] {
            let url = BaseUrl::parse(bare)?;
            assert_eq!((url.kind, url.name.as_str()), (Kind::Mysql, NAME), "{bare}");
            assert!(url.of("tcc_log").ends_with("://ann@db.example/tcc_log"));
        }
        Ok(())
    }

    #[test]
    fn a_proxied_url_differs_in_its_address_only() {
        let proxy = SocketAddr::from(([127, 0, 0, 1], 7));
        assert_eq!(through("postgres://ann:h%40sh@db:5433/log?x=y", proxy), "postgres://ann:h%40sh@127.0.0.1:7/log?x=y");
        assert_eq!(through("mysql://db/log", proxy), "mysql://127.0.0.1:7/log");
    }

    #[test]
    fn a_url_that_does_not_fit_is_refused_without_repeating_its_password() {
        let bad = ["sqlite://ann:hush@x", "oracle://ann:hush@x/y", "postgres://", "ann:hush@x", "mysql://ann:hush@x/a-b"];
        for url in bad {
            let error = format!("{:#}", BaseUrl::parse(url).expect_err(url));
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
