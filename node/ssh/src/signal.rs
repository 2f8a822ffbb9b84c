//! The signals of SSH by the kernel's numbers.

use russh::Sig;

/// The number of a signal that may be sent; none for one that isn't known.
pub fn number(signal: &Sig) -> Option<i32> {
    Some(match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.as_str() {
            "USR2" => 12,
            "CONT" => 18,
            "STOP" => 19,
            "WINCH" => 28,
            _ => return None,
        },
    })
}

/// The signal of a number that [`number`] gives.
pub fn named(number: i32) -> Option<Sig> {
    let custom = |name: &str| Sig::Custom(name.to_owned());
    let known = [Sig::HUP, Sig::INT, Sig::QUIT, Sig::ILL, Sig::ABRT, Sig::FPE, Sig::KILL, Sig::USR1, Sig::SEGV]
        .into_iter()
        .chain([Sig::PIPE, Sig::ALRM, Sig::TERM])
        .chain(["USR2", "CONT", "STOP", "WINCH"].map(custom));
    known.into_iter().find(|signal| self::number(signal) == Some(number))
}
