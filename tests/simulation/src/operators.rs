//! Whoever looks after what is stuck: probes it, tries it anew, says that it was settled outside, and now and then asks for what must be
//! refused. Once all faults are healed, an operator looks after lost rows alone: everything else has to end without one.

use std::{sync::Arc, time::Duration};

use tcc_log::AuditAction;
use tcc_proto::tcc::v1::{
    self as proto, ListStuckRequest, MarkSettledRequest, ProbeRequest, StuckKind, TryAnewRequest, Warrant,
    admin_client::AdminClient,
};
use tcc_types::{BranchId, BranchKey};
use tokio::time::{sleep, timeout};
use tonic::{Status, transport::Channel};

use crate::{answers, dice::Dice, net::gateways, place::Host, settings::Settings, world::World};

/// How long an operator waits for one answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// Stuck branches that are looked at in one round.
const LOOKED_AT_MAX: usize = 20;

struct Operator {
    world: Arc<World>,
    host: Host,
    dice: Dice,
    gateways: Vec<Channel>,
}

/// Looks after the system for as long as it runs.
pub(crate) async fn run(world: Arc<World>, host: Host, settings: Arc<Settings>) -> turmoil::Result {
    let gateways = gateways(&world, host, settings.gateways)?;
    let operator = Operator { dice: world.dice(host), world, host, gateways };
    for round in 0_u64.. {
        sleep(operator.dice.millis(300..=1_800)).await;
        // What is not answered is found stuck again, or is not stuck any more.
        let _ = timeout(ANSWER_WITHIN, operator.look(round)).await;
    }
    Ok(())
}

impl Operator {
    async fn look(&self, round: u64) -> Result<(), Status> {
        let mut admin = AdminClient::new(self.gateways[self.dice.index(self.gateways.len())].clone());
        for (key, kind) in self.stuck(&mut admin).await? {
            if !self.world.is_calm() || self.world.is_lost(&key) {
                self.treat(&mut admin, &key, kind, &format!("round {round}, branch {key}")).await;
            }
        }
        if !self.world.is_calm() && self.dice.happens(200) {
            self.meddle(&mut admin, &format!("round {round}, meddling")).await;
        }
        Ok(())
    }

    /// What is stuck, page by page.
    async fn stuck(&self, admin: &mut AdminClient<Channel>) -> Result<Vec<(BranchKey, StuckKind)>, Status> {
        let page_size = u32::try_from(self.dice.number(1..=4)).unwrap_or(1);
        let mut request = ListStuckRequest { page_size, ..ListStuckRequest::default() };
        let mut keys = Vec::new();
        loop {
            let page = admin.list_stuck(request.clone()).await?.into_inner();
            keys.extend(page.branches.iter().filter_map(|it| {
                let kind = it.stuck.as_ref().map_or(StuckKind::Unspecified, proto::Stuck::kind);
                Some((answers::key(&it.gid, &it.branch_id)?, kind))
            }));
            if page.next_page_token.is_empty() || keys.len() >= LOOKED_AT_MAX {
                return Ok(keys);
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn treat(&self, admin: &mut AdminClient<Channel>, key: &BranchKey, kind: StuckKind, reason: &str) {
        let action = match self.dice.number(0..=9) {
            // Nothing else helps: its participant has it otherwise, or said no when it was tried anew.
            _ if kind == StuckKind::OtherOutcome => AuditAction::MarkSettled,
            0..=3 => AuditAction::Probe,
            4..=6 => AuditAction::TryAnew,
            7 => AuditAction::MarkSettled,
            _ => return,
        };
        self.act(admin, key, action, reason).await;
    }

    /// Asks for something of a branch that is hardly stuck, or without saying who asks.
    async fn meddle(&self, admin: &mut AdminClient<Channel>, reason: &str) {
        let known: Vec<_> = self.world.history().fates.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let Ok(branch) = BranchId::new(self.dice.one_of(&["stock", "coupon", "order", "nobody"])) else { return };
        let key = BranchKey { gid: known[self.dice.index(known.len())], branch };
        let action = self.dice.one_of(&[AuditAction::Probe, AuditAction::TryAnew, AuditAction::MarkSettled]);
        if self.dice.happens(300) {
            let nobody = Warrant { actor: String::new(), reason: reason.to_owned() };
            if send(admin, &key, action, nobody).await.is_ok() {
                self.world.violation("operators", format_args!("{action:?} of {key} was taken from nobody"));
            }
            return;
        }
        self.act(admin, &key, action, reason).await;
    }

    async fn act(&self, admin: &mut AdminClient<Channel>, key: &BranchKey, action: AuditAction, reason: &str) {
        let warrant = Warrant { actor: self.host.to_string(), reason: reason.to_owned() };
        let told = match send(admin, key, action, warrant).await {
            Ok(()) => {
                self.world.history().warrants.push((key.clone(), action, reason.to_owned()));
                "done".to_owned()
            }
            Err(status) => format!("{:?}", status.code()),
        };
        self.world.tell(self.host, format_args!("{action:?} of {key}: {told}"));
        self.world.coverage().tell(&format!("{action:?} by an operator, {told}"));
    }
}

async fn send(admin: &mut AdminClient<Channel>, key: &BranchKey, action: AuditAction, warrant: Warrant) -> Result<(), Status> {
    let (gid, branch_id, warrant) = (key.gid.to_string(), key.branch.to_string(), Some(warrant));
    match action {
        AuditAction::Probe => drop(admin.probe(ProbeRequest { gid, branch_id, warrant }).await?),
        AuditAction::TryAnew => drop(admin.try_anew(TryAnewRequest { gid, branch_id, warrant }).await?),
        AuditAction::MarkSettled => drop(admin.mark_settled(MarkSettledRequest { gid, branch_id, warrant }).await?),
    }
    Ok(())
}
