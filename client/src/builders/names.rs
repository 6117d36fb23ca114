//! Readable names for instances that were given none.

use rand::Rng as _;

const QUALITIES: [&str; 40] = [
    "able", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp", "daring", "eager", "fair",
    "fleet", "fond", "frank", "gentle", "glad", "handy", "hardy", "jolly", "keen", "kind", "light", "lively",
    "lucid", "merry", "mild", "neat", "noble", "patient", "plucky", "proud", "quick", "quiet", "ready",
    "sharp", "steady", "sunny", "swift", "tidy", "warm",
];
const BOATS: [&str; 40] = [
    "ark", "barge", "bark", "brig", "canoe", "caravel", "carrack", "catboat", "clipper", "coble", "cog",
    "coracle", "corvette", "cutter", "dhow", "dinghy", "dory", "drifter", "ferry", "felucca", "frigate",
    "galleon", "galley", "gig", "hooker", "jolly", "junk", "kayak", "ketch", "launch", "lugger", "packet",
    "pinnace", "proa", "punt", "schooner", "skiff", "sloop", "tender", "yawl",
];

/// Two words; a digit is added by the caller's later attempts.
pub fn random(attempt: u32) -> String {
    let mut random = rand::rng();
    let quality = QUALITIES[random.random_range(0..QUALITIES.len())];
    let boat = BOATS[random.random_range(0..BOATS.len())];
    if attempt == 0 {
        format!("{quality}_{boat}")
    } else {
        format!("{quality}_{boat}{}", random.random_range(0..10))
    }
}
