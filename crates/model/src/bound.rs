//! How far the model goes, what may go wrong in it, and what may be wrong with it on purpose.

use crate::properties::{Broken, SETTLES};

/// How far the exploration goes. Within it, everything is explored.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Replicas.
    pub replicas: u8,
    /// Prompts that clients send.
    pub prompts: u8,
    /// Prompts that are sent again.
    pub retries: u8,
    /// Aborts.
    pub aborts: u8,
    /// Deletions of the session.
    pub deletions: u8,
    /// Replicas that readers of events come to.
    pub readers: u8,
    /// Faults of all kinds together.
    pub faults: u8,
    /// Faults of one kind.
    pub of_a_kind: u8,
    /// The kinds that may come.
    pub kinds: &'static [Fault],
    /// What is known to be broken within this bound, and accepted: all else is explored beyond it.
    pub accepts: &'static [Broken],
    /// What is done wrong on purpose.
    pub flaw: Option<Flaw>,
}

impl Bound {
    /// How many faults of a kind may come. Where there are readers, Redis forgets nothing: a log that began anew or went back
    /// is left out.
    pub fn of_kind(&self, fault: Fault) -> u8 {
        let forgets = matches!(fault, Fault::Failover | Fault::Emptied);
        if !self.kinds.contains(&fault) || (forgets && self.readers > 0) { 0 } else { self.of_a_kind.min(self.faults) }
    }

    /// What the test of the model explores in the time that continuous integration has.
    pub fn small() -> Self {
        Self {
            replicas: 2,
            prompts: 1,
            retries: 0,
            aborts: 0,
            deletions: 0,
            readers: 0,
            faults: 1,
            of_a_kind: 1,
            kinds: &Fault::ALL,
            accepts: &[],
            flaw: None,
        }
    }

    /// With readers of events on one replica, while messages on the way to them are lost.
    pub fn with_readers() -> Self {
        Self { readers: 1, kinds: &[Fault::HintLost], ..Self::small() }
    }

    /// With two different faults of those that are over at once, in any order.
    pub fn two_faults() -> Self {
        Self { faults: 2, kinds: &Fault::AT_ONCE, ..Self::small() }
    }

    /// With a replica that is stopped, and one that dies. What comes between a taker's check and its take may depose an owner that
    /// has just taken its lease back: that is accepted, since a step is interrupted then. Here it is shown that nothing is lost or
    /// done twice.
    pub fn stop_and_death() -> Self {
        Self { kinds: &[Fault::Crash, Fault::Pause], accepts: &[Broken::OwnerDeposed], ..Self::two_faults() }
    }

    /// With a client that sends its prompt again, and a fault that is over at once.
    pub fn with_retry() -> Self {
        Self { retries: 1, kinds: &Fault::AT_ONCE, ..Self::small() }
    }

    /// With a client that aborts, and a fault that is over at once.
    pub fn with_abort() -> Self {
        Self { aborts: 1, kinds: &Fault::AT_ONCE, ..Self::small() }
    }

    /// With a client that deletes the session while a replica dies.
    pub fn with_deletion() -> Self {
        Self { deletions: 1, kinds: &[Fault::Crash], ..Self::small() }
    }

    /// With two prompts, and a fault of any kind.
    pub fn two_prompts() -> Self {
        Self { prompts: 2, ..Self::small() }
    }

    /// What `make model` explores.
    pub fn large() -> [Self; 7] {
        [
            Self::two_prompts(),
            Self { kinds: &Fault::ALL, ..Self::with_retry() },
            Self::two_faults(),
            Self::stop_and_death(),
            Self { kinds: &Fault::ALL, ..Self::with_abort() },
            Self::with_deletion(),
            Self::with_readers(),
        ]
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { replicas, prompts, retries, aborts, deletions, readers, faults, of_a_kind, kinds: _, accepts, flaw } =
            self;
        let kinds: Vec<_> = Fault::ALL.into_iter().filter(|fault| self.of_kind(*fault) > 0).collect();
        write!(
            f,
            "{replicas} replicas, 1 session, {prompts} prompts, {retries} sent again, {aborts} aborts, {deletions} \
             deletions, {readers} readers, {faults} faults ({of_a_kind} of a kind) of {kinds:?}"
        )?;
        for broken in *accepts {
            write!(f, "; accepted: not \"{}\"", broken.name())?;
        }
        match flaw {
            None => Ok(()),
            Some(flaw) => write!(f, ", with the flaw {flaw:?}"),
        }
    }
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A replica dies.
    Crash,
    /// A replica is stopped by a signal, and goes on some time.
    Pause,
    /// A replica does not reach Redis for some time.
    Cut,
    /// Redis fails over to a copy that lags one write behind.
    Failover,
    /// Redis is restarted empty.
    Emptied,
    /// A command takes effect, its answer is lost.
    AnswerLost,
    /// A command takes effect after its caller gave it up.
    Late,
    /// A command takes effect at once and again later.
    Twice,
    /// What was published to a replica is lost.
    HintLost,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Crash,
        Self::Pause,
        Self::Cut,
        Self::Failover,
        Self::Emptied,
        Self::AnswerLost,
        Self::Late,
        Self::Twice,
        Self::HintLost,
    ];

    /// Those that are over at once: no replica is away for some time, nor does Redis forget everything.
    pub const AT_ONCE: [Self; 6] =
        [Self::Crash, Self::Failover, Self::AnswerLost, Self::Late, Self::Twice, Self::HintLost];
}

/// What is done wrong, for the tests that show that it would be found: in the surroundings of the core, or with what it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A guard is taken, and a write under it lands, whatever its number is.
    FenceWithoutCompare,
    /// A runner's head commit looks whether it holds the guards, and then writes whether it still does or not.
    CheckThenWrite,
    /// Nobody goes through the markers.
    NoSweep,
    /// An abort is only said over the control channel.
    CancelByHintOnly,
    /// Who has claimed a lease is not asked whether it still has it before it takes the run guard.
    ClaimWithoutConfirm,
    /// A run settles all that was given out, whether it has loaded it or not.
    SettleWithoutTheLook,
    /// The log is read to its end before it is subscribed to.
    ReplayBeforeSubscribe,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FenceWithoutCompare,
        Self::CheckThenWrite,
        Self::NoSweep,
        Self::CancelByHintOnly,
        Self::ClaimWithoutConfirm,
        Self::SettleWithoutTheLook,
        Self::ReplayBeforeSubscribe,
    ];

    /// A bound within which it is found.
    pub fn bound(self) -> Bound {
        let without_faults = Bound { faults: 0, flaw: Some(self), ..Bound::small() };
        let with = |kinds| Bound { faults: 1, kinds, ..without_faults.clone() };
        match self {
            Self::FenceWithoutCompare | Self::ClaimWithoutConfirm => with(&[Fault::Cut]),
            Self::CheckThenWrite | Self::SettleWithoutTheLook => Bound { prompts: 2, ..without_faults },
            Self::NoSweep => with(&[Fault::Crash]),
            Self::CancelByHintOnly => Bound { aborts: 1, ..without_faults },
            Self::ReplayBeforeSubscribe => Bound { readers: 1, ..without_faults },
        }
    }

    /// The property that it breaks.
    pub fn breaks(self) -> &'static str {
        match self {
            Self::FenceWithoutCompare => Broken::TwoRunners.name(),
            Self::CheckThenWrite | Self::SettleWithoutTheLook => Broken::PromptLost.name(),
            Self::NoSweep => SETTLES,
            Self::CancelByHintOnly => Broken::Abort.name(),
            Self::ClaimWithoutConfirm => Broken::OwnerDeposed.name(),
            Self::ReplayBeforeSubscribe => Broken::Missed.name(),
        }
    }
}
