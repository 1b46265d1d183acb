//! The reconciler on a cluster's databases: what users have, as the tests' oracle. It decides nothing itself.

use tcc_reconcile::{Config, Reconciler, Report, Url};

use super::{Cluster, Owner};

impl Cluster {
    /// What the reconciler is to compare: all four databases, and what is sold with what confirmed rows spent.
    #[must_use]
    pub fn reconcile_config(&self, grace_ms: u64) -> Config {
        let url = |owner| self.database_url(owner).to_owned();
        Config {
            log: Url(url(Owner::Log)),
            orders: url(Owner::Orders).parse().ok(),
            inventory: url(Owner::Inventory).parse().ok(),
            coupon: url(Owner::Coupon).parse().ok(),
            grace_ms,
            sold: true,
            ..Config::default()
        }
    }

    /// Looks at everything with so much grace, while the system runs or not.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn reconcile(&self, grace_ms: u64) -> anyhow::Result<Report> {
        let mut reconciler = Reconciler::open(self.reconcile_config(grace_ms)).await?;
        Ok(reconciler.run(&|_| {}).await?)
    }

    /// What the reconciler finds once everything has ended, each as a sentence: then nothing is overdue either.
    ///
    /// # Errors
    /// A database cannot be read.
    pub async fn disagreements_at_rest(&self) -> anyhow::Result<Vec<String>> {
        let report = self.reconcile(0).await?;
        let mut sentences: Vec<String> = report
            .disagreements
            .iter()
            .chain(&report.overdue)
            .map(|finding| format!("the reconciler says: {finding}"))
            .collect();
        if report.counts.left_out > 0 {
            sentences.push(format!("the reconciler did not look at everything again: {} are left out", report.counts.left_out));
        }
        Ok(sentences)
    }
}
