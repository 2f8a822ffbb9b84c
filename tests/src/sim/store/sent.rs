//! Whether what a node sends is on its disk: nothing that binds it leaves before.

use souk_protocol::{
    heads::HeadReport,
    message::{LeaseUpdate, Request, Response},
    signed::{Document, Signed},
};

use super::Store;

impl Store {
    /// Whether a document of a request is on disk.
    #[must_use]
    pub fn has_sent(&self, request: &Request) -> bool {
        match request {
            Request::Commit { open, settle, .. } => self.has(open) && settle.as_ref().is_none_or(|e| self.has(e)),
            Request::Deliver { entry } | Request::Amend { entry } | Request::Opinion { entry } => self.has(entry),
            Request::Update(update) => self.has_news(update),
            Request::Meet(meet) => self.tells(&meet.report),
            Request::Recall { .. }
            | Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Propose(_)
            | Request::Control { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Sync { .. }
            | Request::Login(_)
            | Request::Evidence { .. }
            | Request::Order(_) => true,
        }
    }

    /// Whether every document of ours in an answer is on disk, but those that bind nobody.
    #[must_use]
    pub fn has_answered(&self, response: &Response) -> bool {
        match response {
            Response::Answered(entry) => self.has(entry),
            Response::Seen { ack, close_ack, .. } => {
                ack.as_ref().is_none_or(|a| self.has(a)) && close_ack.as_ref().is_none_or(|e| self.has(e))
            }
            Response::News(update) => self.has_news(update),
            Response::Settled { ack } => ack.as_ref().is_none_or(|e| self.has(e)),
            Response::Met(met) => {
                self.tells(&met.report) && met.at.iter().all(|report| *report == met.report || self.tells(report))
            }
            Response::Recalled { .. }
            | Response::BookSummary { .. }
            | Response::BookPage { .. }
            | Response::BookNotices { .. }
            | Response::Countered(_)
            | Response::Drafted(_)
            | Response::Rejected(_)
            | Response::Controlled { .. }
            | Response::Ordered { .. }
            | Response::Quoted { .. }
            | Response::LoginTaken
            | Response::Evidence(_)
            | Response::Noted
            | Response::Extension(_)
            | Response::Busy { .. } => true,
        }
    }

    /// Whether the entry that a report of ours names is on disk.
    fn tells(&self, report: &Signed<HeadReport>) -> bool {
        self.read(report).is_some_and(|r| r.head.is_none_or(|head| self.known.contains(&head.id)))
    }

    fn has_news(&self, update: &LeaseUpdate) -> bool {
        let events = self.rows.get(&update.lease).and_then(|r| r.events.last()).map_or(0, |e| e.n);
        update.entries.iter().all(|e| self.has(e))
            && update.usage.as_ref().is_none_or(|u| self.has(u))
            && update.events.last().is_none_or(|e| e.n <= events)
    }

    fn has<T: Document>(&self, signed: &Signed<T>) -> bool {
        self.known.contains(&signed.id(&self.network))
    }
}
