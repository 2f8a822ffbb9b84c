#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn nothing_known_is_a_stranger() {
    let me = NodeId([1; 32]);
    let scores = Reputation::new(me).compute(Timestamp(1_800_000_000_000));
    assert_eq!(scores.of(&NodeId([2; 32])), Score::stranger());
    assert_eq!(format!("{:.2}", Score::stranger().trust), "0.13");
}
