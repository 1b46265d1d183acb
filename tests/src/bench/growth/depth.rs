//! How deep PostgreSQL's indexes are, and how much of what an order's pages grew by is that: whoever looks for a key in a tree that
//! has one level more looks at one page more, and a tree gets a level for every few hundredfold of rows. No index can spare that.

use std::collections::BTreeMap;

use sqlx::{Connection, PgConnection, Row};

use super::cost::ByRelation;
use crate::harness::{Cluster, Owner, Store};

/// Levels of each index: 1 is a single page. Empty: they cannot be told.
pub(crate) type Levels = BTreeMap<String, u32>;

const EXTENSION: &str = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pageinspect'";
const LEVELS: &str = "SELECT s.indexrelname::text, (bt_metap(format('%I.%I', s.schemaname, s.indexrelname))).level::bigint + 1 \
     FROM pg_stat_user_indexes AS s JOIN pg_class AS c ON c.oid = s.indexrelid JOIN pg_am AS a ON a.oid = c.relam \
     WHERE a.amname = 'btree'";

/// Of every index of every database. It reads pages itself, which the database counts: not between two counts.
///
/// # Errors
/// A database cannot be asked.
pub(crate) async fn read(cluster: &Cluster) -> anyhow::Result<Levels> {
    let mut levels = Levels::new();
    if cluster.databases().store() != Store::Postgres {
        return Ok(levels);
    }
    for owner in [Owner::Log, Owner::Orders, Owner::Inventory] {
        let mut server = PgConnection::connect(cluster.database_url(owner)).await?;
        if sqlx::query_scalar::<_, i64>(EXTENSION).fetch_one(&mut server).await? > 0 {
            sqlx::query("CREATE EXTENSION IF NOT EXISTS pageinspect").execute(&mut server).await?;
            for row in sqlx::query(LEVELS).fetch_all(&mut server).await? {
                let (name, level): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                levels.insert(format!("{}.{name}", owner.name()), u32::try_from(level)?);
            }
        }
        server.close().await?;
    }
    Ok(levels)
}

/// An index that is deeper than the empty system's, and the pages that an order looks at more in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deeper {
    pub(crate) index: String,
    pub(crate) levels: u32,
    /// Of the empty system's, before the orders and after: they grow with these.
    pub(crate) levels_of_empty: [u32; 2],
    pub(crate) pages: f64,
}

/// Those that were deeper before the orders came.
pub(crate) fn deeper(levels: &Levels, of_empty: &[Levels; 2], pages: &ByRelation, pages_of_empty: &ByRelation) -> Vec<Deeper> {
    let pages_of = |counts: &ByRelation, index: &String| counts.get(index).map_or(0.0, |touched| touched.pages);
    let one = |(index, &levels): (&String, &u32)| {
        let levels_of_empty = [*of_empty[0].get(index)?, *of_empty[1].get(index)?];
        let pages = pages_of(pages, index) - pages_of(pages_of_empty, index);
        (levels > levels_of_empty[0]).then(|| Deeper { index: index.clone(), levels, levels_of_empty, pages })
    };
    levels.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::growth::cost::Touched;

    #[test]
    fn only_what_is_looked_at_more_in_deeper_indexes_is_put_down_to_depth() {
        let levels = |key, user| Levels::from([("key".to_owned(), key), ("user".to_owned(), user)]);
        let pages = |key, user| {
            let touched = |pages| Touched { rows: 1.0, pages };
            ByRelation::from([("key".to_owned(), touched(key)), ("user".to_owned(), touched(user))])
        };
        let of_empty = [levels(1, 2), levels(2, 2)];
        let found = deeper(&levels(3, 2), &of_empty, &pages(12.0, 9.0), &pages(8.0, 6.0));
        assert_eq!(found, [Deeper { index: "key".to_owned(), levels: 3, levels_of_empty: [1, 2], pages: 4.0 }]);
        assert_eq!(deeper(&levels(1, 2), &of_empty, &pages(12.0, 9.0), &pages(8.0, 6.0)), []);
    }
}
