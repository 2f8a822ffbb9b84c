//! Newcomers get a chance: of twenty automatic choices one tries a host that nothing is known of.
//!
//! Without it who is unknown stays unknown. Only the order of what was found changes, and only where nobody has named an order.

use super::STRANGER_TRUST;

/// Of so many automatic choices one tries a newcomer.
pub const ONE_IN: u64 = 20;
/// What a stranger's trust may differ by, to still be one: uptime that was hardly looked at yet.
const NEAR: f64 = 0.005;

/// Puts the first newcomer among the choices first, if the chance falls on it; `roll` is any random number.
pub fn give_a_chance<T>(choices: &mut [T], trust: impl Fn(&T) -> f64, roll: u64) {
    if !roll.is_multiple_of(ONE_IN) {
        return;
    }
    let newcomer = |choice: &T| (trust(choice) - STRANGER_TRUST).abs() < NEAR;
    if let Some(at) = choices.iter().position(newcomer) {
        choices[..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_and_the_others_stay_in_order() {
        let known = [0.9, 0.5, 0.13, 0.4, 0.13];
        let chosen = |roll| {
            let mut choices = known;
            give_a_chance(&mut choices, |trust| *trust, roll);
            choices
        };
        let tried = (0..1000).filter(|roll| chosen(*roll) != known).count();
        assert_eq!(tried, 50);
        assert_eq!(chosen(0), [0.13, 0.9, 0.5, 0.4, 0.13]);
        let mut none: [f64; 0] = [];
        give_a_chance(&mut none, |trust| *trust, 0);
        let mut failed = [0.9, 0.05];
        give_a_chance(&mut failed, |trust| *trust, 0);
        assert_eq!(failed, [0.9, 0.05], "who has failed is no newcomer");
    }
}
