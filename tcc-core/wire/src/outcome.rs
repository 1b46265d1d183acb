//! GetOutcome's questions and answers, both ways.

use tcc_proto::tcc::v1 as proto;
use tcc_types::{BranchId, BranchKey, Gid, Invalid, LogName, Outcome, OutcomeQuery};

use crate::{
    Malformed,
    fields::{row_status_from_proto, row_status_to_proto, timestamp_from_proto, timestamp_to_proto},
};

/// A participant's questions as they are sent.
#[must_use]
pub fn outcome_request(coordinator: &LogName, queries: &[OutcomeQuery]) -> proto::GetOutcomeRequest {
    let queries = queries.iter().map(outcome_query_to_proto).collect();
    proto::GetOutcomeRequest { coordinator: coordinator.to_string(), queries }
}

/// One question as it is sent.
#[must_use]
pub fn outcome_query_to_proto(query: &OutcomeQuery) -> proto::OutcomeQuery {
    proto::OutcomeQuery {
        gid: query.key.gid.to_string(),
        branch_id: query.key.branch.to_string(),
        row_status: row_status_to_proto(Some(query.row_status)).into(),
        not_after: Some(timestamp_to_proto(query.not_after)),
    }
}

/// One question as it arrives.
///
/// # Errors
/// Every field that is not as the contract says.
pub fn outcome_query_from_proto(query: proto::OutcomeQuery) -> Result<OutcomeQuery, Vec<Invalid>> {
    let mut bad = Vec::new();
    let row_status = row_status_from_proto(query.row_status());
    let gid = query.gid.parse::<Gid>().map_err(|problem| bad.push(problem)).ok();
    let branch = BranchId::new(query.branch_id).map_err(|problem| bad.push(problem)).ok();
    let not_after = timestamp_from_proto("not_after", query.not_after.as_ref()).map_err(|problem| bad.push(problem)).ok();
    if row_status.is_none() {
        bad.push(Invalid::new("row_status", "must be the status of a row"));
    }
    match (gid, branch, row_status, not_after) {
        (Some(gid), Some(branch), Some(row_status), Some(not_after)) => {
            Ok(OutcomeQuery { key: BranchKey { gid, branch }, row_status, not_after })
        }
        (_, _, _, _) => Err(bad),
    }
}

/// What the coordinator answers to one question.
#[must_use]
pub fn outcome_answer(query: &OutcomeQuery, outcome: Outcome) -> proto::OutcomeAnswer {
    use proto::outcome_answer::Outcome as Answer;
    let outcome = match outcome {
        Outcome::Confirmed => Answer::Confirmed(proto::OutcomeConfirmed {}),
        Outcome::Cancelled => Answer::Cancelled(proto::OutcomeCancelled {}),
        Outcome::AskAgain { at } => Answer::AskAgain(proto::OutcomeAskAgain { at: Some(timestamp_to_proto(at)) }),
        Outcome::Finished => Answer::Finished(proto::OutcomeFinished {}),
        Outcome::Forgotten => Answer::Forgotten(proto::OutcomeForgotten {}),
        Outcome::NotMine => Answer::NotMine(proto::OutcomeNotMine {}),
    };
    proto::OutcomeAnswer { gid: query.key.gid.to_string(), branch_id: query.key.branch.to_string(), outcome: Some(outcome) }
}

/// What the questions were answered, in their order.
///
/// # Errors
/// The answers do not match the questions one to one, or one of them says nothing. All of them are then unknown: an answer that
/// is taken for another row's would release or spend what it must not.
pub fn outcomes_from_proto(queries: &[OutcomeQuery], response: proto::GetOutcomeResponse) -> Result<Vec<Outcome>, Malformed> {
    if response.answers.len() != queries.len() {
        return Err(Malformed("not as many answers as questions"));
    }
    queries.iter().zip(response.answers).map(|(query, answer)| outcome_from_proto(query, answer)).collect()
}

fn outcome_from_proto(query: &OutcomeQuery, answer: proto::OutcomeAnswer) -> Result<Outcome, Malformed> {
    use proto::outcome_answer::Outcome as Answer;
    let same = answer.gid == query.key.gid.to_string() && answer.branch_id == query.key.branch.as_str();
    if !same {
        return Err(Malformed("an answer about another branch than was asked for in its place"));
    }
    Ok(match answer.outcome.ok_or(Malformed("no outcome"))? {
        Answer::Confirmed(proto::OutcomeConfirmed {}) => Outcome::Confirmed,
        Answer::Cancelled(proto::OutcomeCancelled {}) => Outcome::Cancelled,
        Answer::AskAgain(proto::OutcomeAskAgain { at }) => {
            let at = timestamp_from_proto("at", at.as_ref());
            Outcome::AskAgain { at: at.map_err(|_| Malformed("ask again, but no instant, or none that can be"))? }
        }
        Answer::Finished(proto::OutcomeFinished {}) => Outcome::Finished,
        Answer::Forgotten(proto::OutcomeForgotten {}) => Outcome::Forgotten,
        Answer::NotMine(proto::OutcomeNotMine {}) => Outcome::NotMine,
    })
}

#[cfg(test)]
mod tests {
    use tcc_types::{BranchRowStatus, SystemEntropy, Timestamp};

    use super::*;

    fn query(row_status: BranchRowStatus) -> OutcomeQuery {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let key = BranchKey { gid: Gid::mint(now, &SystemEntropy), branch: BranchId::new("stock").unwrap() };
        OutcomeQuery { key, row_status, not_after: Timestamp::from_micros(1_790_000_000_123_456) }
    }

    fn response(queries: &[OutcomeQuery], outcomes: &[Outcome]) -> proto::GetOutcomeResponse {
        let answers = queries.iter().zip(outcomes).map(|(query, outcome)| outcome_answer(query, *outcome)).collect();
        proto::GetOutcomeResponse { answers }
    }

    #[test]
    fn questions_arrive_as_they_were_sent() {
        let queries = BranchRowStatus::ALL.map(query);
        let request = outcome_request(&LogName::new("main").unwrap(), &queries);
        assert_eq!(request.coordinator, "main");
        let arrived: Vec<_> = request.queries.into_iter().map(|query| outcome_query_from_proto(query).unwrap()).collect();
        assert_eq!(arrived, queries);
    }

    #[test]
    fn a_question_names_all_its_bad_fields() {
        let bad = proto::OutcomeQuery { gid: "x".to_owned(), ..proto::OutcomeQuery::default() };
        let fields: Vec<_> = outcome_query_from_proto(bad).unwrap_err().into_iter().map(|bad| bad.field).collect();
        assert_eq!(fields, ["gid", "branch_id", "not_after", "row_status"]);
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let at = Timestamp::from_micros(1_790_000_000_000_001);
        let outcomes = [
            Outcome::Confirmed,
            Outcome::Cancelled,
            Outcome::AskAgain { at },
            Outcome::Finished,
            Outcome::Forgotten,
            Outcome::NotMine,
        ];
        let queries = outcomes.map(|_| query(BranchRowStatus::Tried));
        assert_eq!(outcomes_from_proto(&queries, response(&queries, &outcomes)), Ok(outcomes.to_vec()));
    }

    #[test]
    fn answers_that_do_not_match_the_questions_are_malformed() {
        let queries = [query(BranchRowStatus::Tried), query(BranchRowStatus::Tried)];
        let outcomes = [Outcome::Confirmed, Outcome::Cancelled];
        let good = response(&queries, &outcomes);
        let mut swapped = good.clone();
        swapped.answers.swap(0, 1);
        let mut short = good.clone();
        short.answers.pop();
        let mut long = good.clone();
        long.answers.push(long.answers[1].clone());
        let mut sibling = good.clone();
        sibling.answers[1].branch_id = "coupon".to_owned();
        let mut silent = good.clone();
        silent.answers[0].outcome = None;
        let mut timeless = good.clone();
        timeless.answers[0].outcome = Some(proto::outcome_answer::Outcome::AskAgain(proto::OutcomeAskAgain { at: None }));
        for bad in [swapped, short, long, sibling, silent, timeless, proto::GetOutcomeResponse::default()] {
            assert!(outcomes_from_proto(&queries, bad.clone()).is_err(), "{bad:?}");
        }
        assert_eq!(outcomes_from_proto(&queries, good), Ok(outcomes.to_vec()));
    }
}
