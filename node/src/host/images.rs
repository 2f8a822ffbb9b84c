//! Which images a host's owner lets renters use, by name.
//!
//! Names are compared in the form the engine would ask a registry for, and in the shorter ones that mean the same, so that no
//! spelling of an image gets around a rule. Which registries may be asked at all is the runtime's.

use souk_protocol::negotiation::{Reject, RejectCode};
use souk_runtime::reference::{DOCKER_HUB, Reference, matches_pattern};

use crate::config::Images;

/// Refuses an image that the owner has not allowed, or has denied.
///
/// # Errors
/// The refusal.
pub fn check(rules: &Images, reference: &str) -> Result<(), Reject> {
    if rules.allow.is_empty() && rules.deny.is_empty() {
        return Ok(());
    }
    let refuse = |sentence: String| Err(Reject::lasting(RejectCode::Image, sentence));
    let parsed = match Reference::parse(reference) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(error.to_string()),
    };
    let shown = parsed.canonical();
    let names = names(&parsed);
    let tagged = |tag: &String| names.iter().map(|name| format!("{name}:{tag}")).collect::<Vec<_>>();
    let pinned = |digest: &String| names.iter().map(|name| format!("{name}@{digest}")).collect::<Vec<_>>();
    let by_tag: Vec<String> = parsed.tag.iter().flat_map(tagged).collect();
    let by_digest: Vec<String> = parsed.digest.iter().flat_map(pinned).collect();
    let any = |patterns: &[String], forms: &[&[String]]| {
        patterns.iter().any(|p| forms.iter().any(|forms| forms.iter().any(|name| matches_pattern(p, name))))
    };
    if any(&rules.deny, &[&names, &by_tag, &by_digest]) {
        return refuse(format!("this host does not run the image {shown}"));
    }
    // Beside a digest a tag is only a claim: what is fetched is the digest's.
    let told: &[String] = if parsed.digest.is_some() { &[] } else { &by_tag };
    if !rules.allow.is_empty() && !any(&rules.allow, &[&names, told, &by_digest]) {
        let mut some: Vec<&str> = rules.allow.iter().take(5).map(String::as_str).collect();
        if rules.allow.len() > some.len() {
            some.push("…");
        }
        return refuse(format!("this host runs only images named {}; {shown} is none of them", some.join(", ")));
    }
    Ok(())
}

/// Refuses images that renters send themselves, where the owner takes none. They have no name that a rule could be about.
///
/// # Errors
/// The refusal.
pub fn check_sent(rules: &Images) -> Result<(), Reject> {
    if rules.sent && rules.allow.is_empty() {
        return Ok(());
    }
    let sentence = if rules.sent {
        "this host runs only images of certain names, and one that is sent to it has none"
    } else {
        "this host takes no images from renters; push it to a registry that the host accepts"
    };
    Err(Reject::lasting(RejectCode::Image, sentence))
}

/// The name without tag and digest, in all the ways that mean the same.
fn names(parsed: &Reference) -> Vec<String> {
    let mut names = vec![parsed.name()];
    if parsed.registry == DOCKER_HUB {
        names.push(parsed.repository.clone());
        names.extend(parsed.repository.strip_prefix("library/").map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> Images {
        let own = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
        Images { allow: own(allow), deny: own(deny), ..Images::default() }
    }

    #[test]
    fn no_spelling_gets_around_a_rule() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let deny = rules(&[], &["evil/miner*", "debian:11"]);
        let spellings = [
            "evil/miner",
            "docker.io/evil/miner:1",
            "index.docker.io/evil/miner-x",
            "debian:11",
            "docker.io/library/debian:11",
        ];
        for bad in spellings {
            assert!(check(&deny, bad).is_err(), "{bad}");
        }
        assert!(check(&deny, &format!("evil/miner@{digest}")).is_err());
        for good in ["debian:12", "debian", "ghcr.io/evil/miner", "evil/other"] {
            assert!(check(&deny, good).is_ok(), "{good}");
        }
        let allow = rules(&["debian:12", "ghcr.io/lab/*"], &["ghcr.io/lab/secret*"]);
        for good in ["debian:12", "library/debian:12", "docker.io/debian:12", "ghcr.io/lab/x:1"] {
            assert!(check(&allow, good).is_ok(), "{good}");
        }
        for bad in
            ["debian", "debian:13", "ghcr.io/lab/secret:1", "quay.io/debian:12", "ghcr.io.evil.example/lab/x", "a b"]
        {
            assert!(check(&allow, bad).is_err(), "{bad}");
        }
        assert!(check(&allow, &format!("debian:12@{digest}")).is_err(), "a tag beside a digest proves nothing");
        assert!(check(&rules(&["debian"], &[]), &format!("debian@{digest}")).is_ok());
        assert!(check(&rules(&[], &[]), "anything goes").is_ok(), "without rules the runtime decides");
    }
}
