//! Ansible, from the Python registry, against an instance by what `souk ssh-config` prints.

use std::{fs, path::PathBuf, process::Stdio};

use souk_tests::{
    images::DEBIAN,
    part::{have_all, present},
    program::{mortal, run},
    ssh::Client,
    world::{World, rent_image},
};

const PLAYBOOK: &str = "
- hosts: all
  gather_facts: true
  tasks:
    - name: A folder
      ansible.builtin.file: { path: /workspace/app, state: directory, mode: '0750' }
    - name: A file
      ansible.builtin.copy: { dest: /workspace/app/greeting, content: 'hello {{ ansible_distribution }}' }
    - name: A command
      ansible.builtin.command: cat /workspace/app/greeting
      register: said
      changed_when: false
    - ansible.builtin.assert: { that: said.stdout == 'hello Debian' }
";

/// Its programs, installed once a checkout; none where the registry can't be reached.
fn installed() -> Option<PathBuf> {
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ansible");
    let programs = venv.join("bin");
    if programs.join("installed").exists() {
        return Some(programs);
    }
    let quiet = |command: &mut std::process::Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let made = quiet(mortal("python3".as_ref()).args(["-m", "venv", "--clear"]).arg(&venv))
        && quiet(
            mortal(&programs.join("pip"))
                .args(["install", "-q", "--retries", "1", "--disable-pip-version-check"])
                .arg("ansible-core>=2.16,<2.19"),
        );
    if made {
        fs::write(programs.join("installed"), "").unwrap();
    }
    made.then_some(programs)
}

#[test]
fn ansible_manages_an_instance() {
    if !have_all(&["docker", "mmdebstrap", "python3"]) {
        return;
    }
    let programs = installed();
    if !present("ansible", programs.is_some()) {
        return;
    }
    let programs = programs.unwrap();
    let world = World::with_docker();
    world.docker().debian();
    let (host, renter) = world.pair(1);
    let lease = rent_image(&renter, &host, 1, DEBIAN, &[], &["bash", "-c", super::IDLE]);
    let client = Client::of(&renter, &lease, world.path());
    let config = format!(
        "[defaults]\nhost_key_checking = True\n[ssh_connection]\nssh_args = -F {} -o ControlMaster=auto -o ControlPersist=20s \
         -o ControlPath={}/cm\n",
        client.config.display(),
        world.path().display(),
    );
    let file = |name: &str, content: &str| {
        let path = world.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (config, inventory, playbook) =
        (file("ansible.cfg", &config), file("inventory", "job\n"), file("play.yml", PLAYBOOK));
    let ansible = |program: &str, arguments: &[&str]| {
        let mut command = mortal(&programs.join(program));
        command.arg("-i").arg(&inventory).args(arguments).current_dir(world.path());
        command.env("ANSIBLE_CONFIG", &config).env("HOME", world.path()).env("ANSIBLE_NOCOLOR", "1");
        run(&mut command, &[])
    };
    let ping = ansible("ansible", &["all", "-m", "ping"]);
    assert!(ping.code == 0 && ping.out.contains("\"ping\": \"pong\""), "{}{}", ping.out, ping.err);
    let play = playbook.to_str().unwrap();
    let first = ansible("ansible-playbook", &[play]);
    assert!(first.code == 0 && first.out.contains("changed=2"), "{}{}", first.out, first.err);
    let second = ansible("ansible-playbook", &[play]);
    assert!(second.code == 0 && second.out.contains("changed=0"), "{}{}", second.out, second.err);
    assert_eq!(
        client.ssh(&["job", "stat -c %a /workspace/app; cat /workspace/app/greeting"], &[]).out,
        "750\nhello Debian"
    );
    let _ = renter.json(&["destroy", "-y", &lease]);
}
