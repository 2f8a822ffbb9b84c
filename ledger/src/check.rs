//! Whether two ledgers tell the same story: the invariants `both-sides-agree` and `money-conserved`, for tests and for people
//! who compare their exports.

use std::collections::BTreeSet;

use souk_protocol::LeaseId;

use crate::view::{QueryError, View};

/// In what two ledgers differ.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// A lease is held by one side only, beyond the open.
    #[error("the lease {} is held by one side only", .0.short())]
    OneSided(LeaseId),
    /// The two sides hold different terms or answers.
    #[error("the two sides hold different {what} of the lease {}", lease.short())]
    Documents {
        /// Which lease.
        lease: LeaseId,
        /// Which documents.
        what: &'static str,
    },
    /// The two sides hold different newest receipts.
    #[error("the two sides hold different last receipts of the lease {}", .0.short())]
    Receipts(LeaseId),
    /// What one may claim is not what the other has signed for.
    #[error("between the two, {earned} {currency} are earned but {spent} {currency} are spent")]
    Money {
        /// What one side may claim.
        earned: souk_protocol::Amount,
        /// What the other has signed for.
        spent: souk_protocol::Amount,
        /// In which currency.
        currency: souk_protocol::Currency,
    },
    /// A ledger can't be read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// `both-sides-agree`: for each lease between the two, the same draft, open and answer, and the same last countersigned receipt.
/// Call it when nothing is under way.
///
/// # Errors
/// The first [`Disagreement`].
pub fn both_sides_agree(a: &View, b: &View) -> Result<(), Disagreement> {
    let mut ids: BTreeSet<LeaseId> = a.lease_ids()?.into_iter().collect();
    ids.extend(b.lease_ids()?);
    for id in ids {
        let (left, right) = (a.lease(&id)?, b.lease(&id)?);
        let between = left.as_ref().or(right.as_ref()).is_some_and(|l| l.peer_of(&a.own()) == Some(b.own()));
        if !between {
            continue;
        }
        let (Some(left), Some(right)) = (left, right) else {
            return Err(Disagreement::OneSided(id));
        };
        let same = [
            ("terms", left.draft == right.draft),
            ("opens", left.open == right.open),
            ("answers", left.answer == right.answer),
            ("closes", left.host_close == right.host_close),
            ("closes", left.renter_close == right.renter_close),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            return Err(Disagreement::Documents { lease: id, what });
        }
        if left.receipts.agreed != right.receipts.agreed {
            return Err(Disagreement::Receipts(id));
        }
    }
    Ok(())
}

/// `money-conserved`: in each currency, what each may claim from the other is what the other has signed for, to the unit.
///
/// # Errors
/// The first [`Disagreement`].
pub fn money_conserved(a: &View, b: &View) -> Result<(), Disagreement> {
    for (one, other) in [(a, b), (b, a)] {
        for (_, currency, ours) in one.balances(Some(&other.own()))? {
            let theirs = other.balance(&one.own(), &currency)?;
            for (earned, spent) in [(ours.earned, theirs.spent), (theirs.earned, ours.spent)] {
                if earned != spent {
                    return Err(Disagreement::Money { earned, spent, currency });
                }
            }
        }
    }
    Ok(())
}
