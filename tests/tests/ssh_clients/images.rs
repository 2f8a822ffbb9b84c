//! Images of every kind.

use souk_tests::{
    images::{BARE, GUEST, MUSL},
    part::have_all,
    program::run,
    ssh::Client,
    world::{World, rent_image},
};

#[test]
fn every_kind_of_image_is_reached() {
    if !have_all(&["docker", "musl-gcc"]) {
        return;
    }
    let world = World::with_docker();
    let docker = world.docker();
    docker.musl();
    docker.guest();
    docker.bare();
    let (host, renter) = world.pair(3);
    let image = |image: &str, command: &[&str]| {
        let lease = rent_image(&renter, &host, 1, image, &[], command);
        let folder = world.path().join(&lease);
        std::fs::create_dir(&folder).unwrap();
        (Client::of(&renter, &lease, &folder), lease)
    };

    // Programs of musl, with a terminal and without, by name and by user.
    let (musl, lease) = image(MUSL, &["told", "wait"]);
    let outcome = musl.with("SetEnv", "LANG=C.UTF-8").ssh(&["job", "told 7"], &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "root pipe C.UTF-8\n"), "{}", outcome.err);
    assert_eq!(musl.ssh(&["-l", "guest", "job", "told"], &[]).out, "guest pipe -\n");
    let outcome = musl.ssh(&["-tt", "job", "told 3"], &[]);
    assert!(outcome.code == 3 && outcome.out.contains("root terminal"), "{}{}", outcome.out, outcome.err);
    let listed = run(musl.program("sftp").args(["-q", "-b", "-", "job"]), b"ls -l /bin/told\n");
    assert!(listed.code == 0 && listed.out.contains("/bin/told"), "{}", listed.err);
    let _ = renter.json(&["destroy", "-y", &lease]);

    // A user without rights has what is the user's, and no more.
    let (guest, lease) = image(GUEST, &["sh", "-c", super::IDLE]);
    let outcome = guest.ssh(&["job", "id -un; pwd; touch mine && echo made; touch /etc/theirs || echo kept"], &[]);
    assert_eq!(outcome.out, "guest\n/tmp\nmade\nkept\n", "{}", outcome.err);
    let batch = b"-put /etc/hostname /etc/theirs\nput /etc/hostname here\nls -ln here\n";
    let listed = run(guest.program("sftp").args(["-q", "-b", "-", "job"]), batch);
    assert!(listed.code == 0 && listed.out.contains("1000"), "{}{}", listed.out, listed.err);
    assert!(listed.err.contains("Permission denied"), "{}", listed.err);
    assert_eq!(guest.ssh(&["-l", "root", "job", "id -u"], &[]).out, "0\n", "the renter may be anybody in there");
    let nobody = guest.ssh(&["-l", "no-such-user", "job", "true"], &[]);
    assert!(nobody.code != 0 && nobody.err.contains("no-such-user"), "{}: {}", nobody.code, nobody.err);
    let _ = renter.json(&["destroy", "-y", &lease]);

    // Without a shell: plain commands, files and ports all the same, and a word on why there is nothing to log in to.
    let (bare, lease) = image(BARE, &["/told", "wait"]);
    let outcome = bare.ssh(&["job", "/told 9"], &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (9, "nobody pipe -\n"), "{}", outcome.err);
    for line in [&["job"][..], &["job", "/told | /told"]] {
        let outcome = bare.ssh(line, &[]);
        assert!(
            outcome.code == 127 && outcome.err.contains("this image has no shell"),
            "{}: {}",
            outcome.code,
            outcome.err
        );
    }
    let listed = run(bare.program("sftp").args(["-q", "-b", "-", "job"]), b"ls /\n");
    assert!(listed.code == 0 && listed.out.contains("told"), "{}{}", listed.out, listed.err);
    let _ = renter.json(&["destroy", "-y", &lease]);
}
