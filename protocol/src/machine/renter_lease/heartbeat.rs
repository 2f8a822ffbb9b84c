//! The renter's own meter: how long an instance has not run while its host says that it did.
//!
//! The renter's node asks the helper in the instance again and again ([`Beat`]), and this counts what the answers say. It owns the
//! **silence** of a lease, never more of it than is known: what nobody asked for, what was not asked because the renter's own link or
//! node was down, and what the host itself says was no run, is none. It asks nobody and decides about no money:
//! `receipts` takes the silence off what the host may claim.
//!
//! Times are of a clock that nobody sets and that goes on while the renter's machine sleeps (since its start), so a clock that
//! jumps changes nothing. Two things are evidence:
//!
//! - **The helper's own count** of the time in which it was scheduled. A frozen instance does not count, whatever its host's clock
//!   does. With `a` counted at an answer that came at `r`, and `a'` at one that was asked for at `s'` of the same process, it stood
//!   still for at least `(s' − a') − (r − a)`: what the way took only ever lowers that.
//! - **No answer** from the first question on that had none, while the host could be reached. Less than [`SETTLE`] of it proves
//!   nothing. An answer of the same process takes its place by the count; one of another process takes back what the instance's
//!   first process, by its age, was there for.
//!
//! Beside the silence it counts for how long the instance was **watched**: from question to question, and over a gap of ours only if
//! the same process goes on counting after it. What is not known to be silence is not in it.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// So long nothing may answer before that says anything: a start, a slow engine, news of a stop on its way.
pub const SETTLE: Millis = Millis::from_secs(15);
/// A gap between two questions that is longer is our own: nobody asked, as when our machine slept.
pub const ASKED_WITHIN: Millis = Millis::from_secs(120);
/// How long a link may be down before that is noticed: what went unanswered so shortly before is not the instance's silence.
pub const LINK_NOTICED: Millis = Millis::from_secs(60);
/// A question whose outcome is known later than this was not waited for: our machine slept.
const ANSWERED_WITHIN: Millis = Millis::from_secs(30);
/// The longest time between two questions.
pub const ASK_EVERY: Millis = Millis::from_secs(30);
/// The shortest.
const ASK_EVERY_LEAST: Millis = Millis::from_secs(1);
/// How long an answer may take, at most and at least.
const ANSWER_WITHIN: (Millis, Millis) = (Millis::from_secs(10), Millis::from_secs(3));

/// How often an instance is asked whose host writes a receipt each `tick`: twice a receipt, each half a minute at least.
#[must_use]
pub fn ask_every(tick: Millis) -> Millis {
    Millis((tick.0 / 2).clamp(ASK_EVERY_LEAST.0, ASK_EVERY.0))
}

/// How long an answer may take there.
#[must_use]
pub fn answer_within(tick: Millis) -> Millis {
    Millis(ask_every(tick).0.clamp(ANSWER_WITHIN.1.0, ANSWER_WITHIN.0.0))
}

/// What the helper in an instance says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Drawn by the helper's process that answers, when it began.
    pub process: u64,
    /// How long that process has been awake, by its own count.
    pub awake: Millis,
    /// How long the instance's first process has been there.
    pub up: Millis,
}

/// What came of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The helper has answered.
    Answered(Pulse),
    /// The host could be reached, and nothing in the instance answered in time.
    Silent,
    /// The host could not be reached: nothing is known.
    Unheard,
}

/// A process of the helper whose count is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Followed {
    process: u64,
    /// The least that an answer came later than the process had counted.
    ahead: i128,
    /// How long it has stood still, at least.
    still: Millis,
}

/// Questions without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unanswered {
    from: Millis,
    until: Millis,
}

impl Unanswered {
    /// What of it counts.
    fn settled(self) -> Millis {
        let length = Millis(self.until.0.saturating_sub(self.from.0));
        if length >= SETTLE { length } else { Millis(0) }
    }
}

/// The silence of one lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Of what is over.
    silent: Millis,
    followed: Option<Followed>,
    unanswered: Option<Unanswered>,
    /// How long it was watched.
    watched: Millis,
    /// Until when, in the present run.
    looked: Option<Millis>,
    /// What was silent before that began.
    before: Millis,
}

impl Heartbeat {
    /// A meter that goes on from a silence known before.
    #[must_use]
    pub fn restored(silent: Millis) -> Self {
        Self { silent, before: silent, ..Self::default() }
    }

    /// For how long it was watched since this meter began, and for how long of that it is not known to have been silent.
    #[must_use]
    pub fn watched(&self) -> (Millis, Millis) {
        let silent = self.silent().0.saturating_sub(self.before.0);
        (self.watched, Millis(self.watched.0.saturating_sub(silent)))
    }

    /// For how long the instance is known not to have run, of all the time that its host says it did.
    #[must_use]
    pub fn silent(&self) -> Millis {
        // Of a process that will answer again the count comes in place of the questions without an answer.
        let still = self.followed.map_or(0, |followed| followed.still.0);
        let unanswered = self.unanswered.map_or(0, |unanswered| unanswered.settled().0);
        Millis(self.silent.0.saturating_add(still).saturating_add(unanswered))
    }

    /// A question of the present run, asked at `asked`, and what came of it, known at `at`.
    pub fn beat(&mut self, asked: Millis, beat: Beat, at: Millis) {
        let at = at.max(asked);
        if at.0 - asked.0 > ANSWERED_WITHIN.0 {
            // We slept, and have not looked: it says nothing.
            return;
        }
        if self.unanswered.is_some_and(|open| asked.0.saturating_sub(open.until.0) > ASKED_WITHIN.0) {
            self.give_up_waiting();
        }
        self.look(asked, beat, at);
        match beat {
            Beat::Answered(pulse) => self.answered(asked, pulse, at),
            Beat::Silent => {
                let from = self.unanswered.map_or(asked, |open| open.from);
                let until = self.unanswered.map_or(at, |open| open.until.max(at));
                self.unanswered = Some(Unanswered { from, until });
            }
            Beat::Unheard => {
                // The link may have been down for some time before that was noticed.
                if let Some(open) = &mut self.unanswered {
                    let until = open.until.0.saturating_sub(LINK_NOTICED.0);
                    let unknown = open.until.0 - until.max(open.from.0);
                    self.watched.0 = self.watched.0.saturating_sub(unknown);
                    open.until.0 = until;
                }
                self.run_ends();
            }
        }
    }

    /// The host says that the instance does not run any more: what was found out stays.
    pub fn run_ends(&mut self) {
        self.give_up_waiting();
        self.let_go();
        self.looked = None;
    }

    /// Counts what is known since the last look of this run.
    fn look(&mut self, asked: Millis, beat: Beat, at: Millis) {
        let goes_on = match beat {
            Beat::Answered(pulse) => self.followed.is_some_and(|followed| followed.process == pulse.process),
            Beat::Silent => false,
            Beat::Unheard => return,
        };
        let known = |until: &Millis| goes_on || asked.0.saturating_sub(until.0) <= ASKED_WITHIN.0;
        let from = self.looked.filter(known).unwrap_or(asked);
        self.watched.0 = self.watched.0.saturating_add(at.0.saturating_sub(from.0));
        self.looked = Some(self.looked.map_or(at, |until| until.max(at)));
    }

    fn give_up_waiting(&mut self) {
        if let Some(open) = self.unanswered.take() {
            self.silent.0 = self.silent.0.saturating_add(open.settled().0);
        }
    }

    fn let_go(&mut self) {
        if let Some(followed) = self.followed.take() {
            self.silent.0 = self.silent.0.saturating_add(followed.still.0);
        }
    }

    fn answered(&mut self, asked: Millis, pulse: Pulse, at: Millis) {
        let ahead = |time: Millis| i128::from(time.0) - i128::from(pulse.awake.0);
        let waited = self.unanswered.take();
        if let Some(followed) = self.followed.as_mut().filter(|followed| followed.process == pulse.process) {
            // Its count says what the missing answers could not.
            let still = u64::try_from(ahead(asked) - followed.ahead).unwrap_or(0);
            followed.still = followed.still.max(Millis(still));
            followed.ahead = followed.ahead.min(ahead(at));
            return;
        }
        if let Some(open) = waited {
            let absent = asked.0.saturating_sub(open.from.0).saturating_sub(pulse.up.0);
            let absent = Unanswered { from: Millis(0), until: Millis(absent) };
            self.silent.0 = self.silent.0.saturating_add(absent.settled().0);
        }
        self.let_go();
        self.followed = Some(Followed { process: pulse.process, ahead: ahead(at), still: Millis(0) });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Millis {
        Millis::from_secs(secs)
    }

    fn pulse(process: u64, awake: u64, up: u64) -> Beat {
        Beat::Answered(Pulse { process, awake: secs(awake), up: secs(up) })
    }

    #[test]
    fn a_frozen_instance_is_silent_for_as_long_as_its_own_count_stood_still() {
        let mut meter = Heartbeat::default();
        meter.beat(secs(0), pulse(1, 0, 2), secs(0));
        meter.beat(secs(30), pulse(1, 30, 32), secs(30));
        // Frozen from 31 to 91: three questions without an answer in time.
        for asked in [60, 75, 85] {
            meter.beat(secs(asked), Beat::Silent, secs(asked + 5));
        }
        assert_eq!(meter.silent(), secs(30), "no more than what was asked for without an answer");
        meter.beat(secs(90), pulse(1, 32, 92), secs(92));
        assert_eq!(meter.silent(), secs(58), "then the count tells, less what the answer's way may have taken");
        meter.beat(secs(120), pulse(1, 60, 122), secs(120));
        assert_eq!(meter.silent(), secs(60));
        meter.beat(secs(150), pulse(1, 90, 152), secs(150));
        meter.run_ends();
        assert_eq!(meter.silent(), secs(60));
    }

    #[test]
    fn a_dead_instance_is_silent_from_the_first_question_that_nobody_answers() {
        let mut meter = Heartbeat::default();
        meter.beat(secs(0), pulse(1, 0, 100), secs(0));
        meter.beat(secs(30), Beat::Silent, secs(40));
        assert_eq!(meter.silent(), secs(0), "that says nothing yet");
        meter.beat(secs(60), Beat::Silent, secs(70));
        assert_eq!(meter.silent(), secs(40));
        // It was there again from 75 on: another first process.
        meter.beat(secs(90), pulse(2, 0, 15), secs(90));
        assert_eq!(meter.silent(), secs(45));
        // The helper alone was killed, or could not be started: its instance was there.
        meter.beat(secs(120), Beat::Silent, secs(130));
        meter.beat(secs(150), Beat::Silent, secs(160));
        assert_eq!(meter.silent(), secs(85));
        meter.beat(secs(180), pulse(3, 0, 105), secs(180));
        assert_eq!(meter.silent(), secs(45));
    }

    #[test]
    fn a_link_that_is_down_and_a_node_that_sleeps_are_no_silence() {
        let mut meter = Heartbeat::default();
        meter.beat(secs(0), pulse(1, 0, 100), secs(0));
        meter.beat(secs(30), Beat::Silent, secs(40));
        meter.beat(secs(60), Beat::Silent, secs(70));
        meter.beat(secs(75), Beat::Unheard, secs(75));
        assert_eq!(meter.silent(), secs(0), "the link was down before that was noticed");
        meter.beat(secs(90), Beat::Unheard, secs(90));
        meter.beat(secs(120), Beat::Silent, secs(130));
        // Our machine slept for an hour.
        meter.beat(secs(3720), Beat::Silent, secs(3730));
        assert_eq!(meter.silent(), secs(0));
        // But a long silence does not go away with the link.
        for asked in (3750..7350).step_by(30) {
            meter.beat(secs(asked), Beat::Silent, secs(asked + 10));
        }
        meter.beat(secs(7350), Beat::Unheard, secs(7350));
        assert_eq!(meter.silent(), secs(7330 - 3720 - 60));
    }

    #[test]
    fn news_of_a_stop_that_is_on_its_way_costs_nobody_anything() {
        let mut meter = Heartbeat::default();
        for run in 0..100 {
            let began = run * 100;
            meter.beat(secs(began), pulse(run, 0, 1), secs(began));
            meter.beat(secs(began + 30), Beat::Silent, secs(began + 40));
            meter.run_ends();
        }
        assert_eq!(meter.silent(), secs(0));
        assert_eq!(Heartbeat::restored(secs(7)).silent(), secs(7));
    }

    #[test]
    fn what_nobody_asked_for_was_not_watched_unless_the_same_process_counted_on() {
        let mut meter = Heartbeat::restored(secs(7));
        let watched = |meter: &Heartbeat| (meter.watched().0.0 / 1000, meter.watched().1.0 / 1000);
        assert_eq!(watched(&meter), (0, 0));
        meter.beat(secs(100), pulse(1, 0, 5), secs(100));
        meter.beat(secs(130), pulse(1, 30, 35), secs(130));
        assert_eq!(watched(&meter), (30, 30));
        // An hour asleep: the count says that it ran; of another process nothing is known.
        meter.beat(secs(3730), pulse(1, 3630, 3635), secs(3730));
        assert_eq!(watched(&meter), (3630, 3630));
        meter.beat(secs(7330), pulse(2, 0, 7235), secs(7330));
        assert_eq!(watched(&meter), (3630, 3630));
        // Not answered for 40 s; and before a link that is down, not known.
        meter.beat(secs(7360), Beat::Silent, secs(7370));
        meter.beat(secs(7390), Beat::Silent, secs(7400));
        assert_eq!(watched(&meter), (3700, 3660));
        meter.beat(secs(7410), Beat::Unheard, secs(7410));
        assert_eq!(watched(&meter), (3660, 3660));
        meter.beat(secs(7500), pulse(3, 0, 100), secs(7500));
        assert_eq!(watched(&meter), (3660, 3660));
    }

    #[test]
    fn questions_come_twice_a_receipt_within_bounds() {
        assert_eq!((ask_every(secs(1)), answer_within(secs(1))), (secs(1), secs(3)));
        assert_eq!((ask_every(secs(20)), answer_within(secs(20))), (secs(10), secs(10)));
        assert_eq!((ask_every(secs(3600)), answer_within(secs(3600))), (secs(30), secs(10)));
    }

    /// A world with one instance, told in whole seconds: what happens to it, and what the way to it is like.
    #[derive(Debug, Clone)]
    enum Happens {
        /// It runs.
        Runs(u64),
        /// It stands still.
        Frozen(u64),
        /// It and its helper are gone.
        Dead(u64),
        /// It runs, but the link is down; noticed after so many seconds.
        LinkDown(u64, u64),
        /// It runs, and our machine sleeps.
        WeSleep(u64),
        /// It runs, and its helper is killed: another one answers after so many seconds.
        HelperKilled(u64),
        /// It runs, and the way takes so many seconds each way.
        Slow(u64, u64),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => (1u64..400).prop_map(Happens::Runs),
            2 => (1u64..400).prop_map(Happens::Frozen),
            2 => (1u64..400).prop_map(Happens::Dead),
            2 => (1u64..400, 0u64..55).prop_map(|(length, noticed)| Happens::LinkDown(length, noticed)),
            1 => (1u64..4000).prop_map(Happens::WeSleep),
            1 => (0u64..14).prop_map(Happens::HelperKilled),
            1 => (1u64..200, 0u64..4).prop_map(|(length, way)| Happens::Slow(length, way)),
        ]
    }

    /// What an instant is like.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Instant {
        frozen: bool,
        dead: bool,
        link: bool,
        noticed: bool,
        asleep: bool,
        helper: bool,
        way: u64,
    }

    fn world(story: &[Happens]) -> Vec<Instant> {
        let runs =
            Instant { frozen: false, dead: false, link: true, noticed: false, asleep: false, helper: true, way: 0 };
        // A start, so that there is something to compare with.
        let mut world = vec![runs; 40];
        for part in story {
            match *part {
                Happens::Runs(length) => world.extend(vec![runs; length as usize]),
                Happens::Frozen(length) => world.extend(vec![Instant { frozen: true, ..runs }; length as usize]),
                Happens::Dead(length) => {
                    world.extend(vec![Instant { dead: true, helper: false, ..runs }; length as usize]);
                }
                Happens::LinkDown(length, noticed) => world.extend((0..length).map(|second| Instant {
                    link: false,
                    noticed: second >= noticed,
                    // The host's node hangs up what the stream ran.
                    helper: second < noticed,
                    ..runs
                })),
                Happens::WeSleep(length) => world.extend(vec![Instant { asleep: true, ..runs }; length as usize]),
                Happens::HelperKilled(length) => {
                    world.extend(vec![Instant { helper: false, ..runs }; length as usize]);
                }
                Happens::Slow(length, way) => world.extend(vec![Instant { way, ..runs }; length as usize]),
            }
            world.extend(vec![runs; 3]);
        }
        world.extend(vec![runs; 60]);
        world
    }

    /// Lives through it as the renter's node does, a second at a time. The silence, and how long it really did not run.
    fn lived(world: &[Instant], rate_ppm: i64) -> (Millis, Millis) {
        let mut meter = Heartbeat::default();
        let (mut process, mut began, mut awake_us, mut born) = (0u64, false, 0i64, 0usize);
        let mut not_run = 0;
        let mut waiting: Option<usize> = None;
        let mut ask_at = 0usize;
        for (second, instant) in world.iter().enumerate() {
            let at = secs(second as u64);
            if instant.dead || instant.frozen {
                not_run += 1;
            }
            if instant.dead {
                born = second + 1;
            }
            if !instant.helper {
                began = false;
            } else if !began {
                (process, began, awake_us) = (process + 1, true, 0);
            } else if !instant.frozen {
                awake_us += 1_000_000 + rate_ppm;
            }
            if instant.asleep {
                continue;
            }
            if instant.noticed {
                waiting = None;
                meter.beat(at, Beat::Unheard, at);
                continue;
            }
            if waiting.is_none() && second >= ask_at {
                waiting = Some(second);
                ask_at = second + 30;
            }
            let Some(asked) = waiting else { continue };
            let answers =
                instant.link && instant.helper && !instant.frozen && second as u64 >= asked as u64 + 2 * instant.way;
            if answers {
                let awake = Millis(u64::try_from(awake_us / 1000).unwrap());
                // It was counted on the way back.
                let awake = Millis(awake.0.saturating_sub(instant.way * 1000));
                let up = secs((second - born) as u64);
                meter.beat(secs(asked as u64), Beat::Answered(Pulse { process, awake, up }), at);
                waiting = None;
            } else if second >= asked + 10 {
                meter.beat(secs(asked as u64), Beat::Silent, at);
                waiting = None;
                ask_at = second;
            }
        }
        let (watched, answered) = meter.watched();
        assert!(watched <= secs(world.len() as u64), "{watched} of {}", world.len());
        assert_eq!(watched.0 - answered.0, meter.silent().0.min(watched.0));
        (meter.silent(), secs(not_run))
    }

    proptest! {
        /// However links, sleep, clocks and helpers behave: an instance that ran is not called silent, but for what the clocks'
        /// rates may differ.
        #[test]
        fn nobody_is_called_silent_who_was_not(story in proptest::collection::vec(happens(), 0..12), rate in -200i64..200) {
            let world = world(&story);
            let (silent, not_run) = lived(&world, rate);
            let drift = Millis(world.len() as u64 * 1000 / 4000);
            prop_assert!(silent.0 <= not_run.0 + drift.0 + 1000, "{silent} of {not_run} in {story:?}");
        }

        /// An instance that stood still or was gone while it could be asked is found out, but for the time to the next question
        /// and what is too short to say anything.
        #[test]
        fn who_did_not_run_is_found_out(gone in any::<bool>(), begins in 1u64..100, length in 60u64..2000) {
            let middle = if gone { Happens::Dead(length) } else { Happens::Frozen(length) };
            let (silent, not_run) = lived(&world(&[Happens::Runs(begins), middle, Happens::Runs(100)]), 0);
            prop_assert!(silent <= not_run);
            // Up to the next question, how long the last one waited, and a second of rounding at either end.
            let unseen = if gone { 42 } else { 1 };
            prop_assert!(silent.0 + unseen * 1000 >= not_run.0, "{silent} of {not_run}");
        }

        /// Whatever a host lets its helper say, there is an answer.
        #[test]
        fn nothing_overflows(beats in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u8..4, any::<u64>(), any::<u64>()), 0..60)) {
            let mut meter = Heartbeat::default();
            for (asked, at, kind, awake, up) in beats {
                let beat = match kind {
                    0 => Beat::Silent,
                    1 => Beat::Unheard,
                    n => Beat::Answered(Pulse { process: u64::from(n), awake: Millis(awake), up: Millis(up) }),
                };
                let before = meter.silent;
                meter.beat(Millis(asked), beat, Millis(at));
                prop_assert!(meter.silent >= before && meter.silent() >= meter.silent);
            }
        }
    }
}
