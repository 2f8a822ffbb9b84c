//! What people want of hooks, carried out: list, add, remove, test, log.

use super::{
    Command,
    delivery::webhook::public_key,
    disk::Hook,
    event::EventKind,
    queue::Queue,
    target::Target,
    task::{HooksTask, TESTS},
};
use crate::{
    api::types::{HookDelivery, HookRequest, HookView, HooksView},
    clock::now,
    market::{CommandError, ErrorCode, command::Reply},
};

/// Hooks of one node.
const HOOKS: usize = 32;
/// Bytes of a name.
const NAME_BYTES: usize = 32;
/// Lines of the log shown at once, and unasked.
const LOGGED: (usize, usize) = (1000, 20);

impl HooksTask {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::List(reply) => {
                let hooks = self.hooks.hooks.iter().map(|h| self.view(h)).collect();
                reply.send(Ok(HooksView { public_key: public_key(&self.me), hooks })).ok();
            }
            Command::Add { request, programs, reply } => {
                let added = self.add(request, programs).await;
                reply.send(added).ok();
            }
            Command::Remove { name, reply } => {
                let removed = self.remove(&name).await;
                reply.send(removed).ok();
            }
            Command::Test { name, reply } => self.test(&name, reply),
            Command::Log { request, reply } => {
                let limit = request.limit.unwrap_or(LOGGED.1).min(LOGGED.0);
                let known = request.name.as_deref().map(|name| self.find(name).map(drop)).transpose();
                let logged = match known {
                    Ok(_) => self.on_disk(move |disk| disk.logged(request.name.as_deref(), limit)).await.map_err(|e| {
                        CommandError::new(ErrorCode::Internal, format!("the hooks' log can't be read: {e}"))
                    }),
                    Err(error) => Err(error),
                };
                reply.send(logged).ok();
            }
        }
    }

    fn find(&self, name: &str) -> Result<Hook, CommandError> {
        let found = self.hooks.hooks.iter().find(|h| h.name == name).cloned();
        found.ok_or_else(|| {
            let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_BYTES).collect();
            CommandError::new(ErrorCode::NotFound, format!("there is no hook `{name}`")).hint("souk hook list")
        })
    }

    fn view(&self, hook: &Hook) -> HookView {
        let none = Queue::default();
        let queue = self.queues.get(&hook.id).unwrap_or(&none);
        let all = hook.events.is_empty();
        HookView {
            name: hook.name.clone(),
            events: if all { vec!["all".to_owned()] } else { hook.events.iter().map(ToString::to_string).collect() },
            kind: match hook.target {
                Target::Url(_) => "webhook",
                Target::Program(_) => "program",
            }
            .to_owned(),
            target: hook.target.to_string(),
            added_ms: hook.added,
            waiting: queue.len() as u64,
            delivered: queue.delivered,
            failed: queue.failed,
            dropped: queue.dropped,
            last: queue.last.clone(),
            disabled: hook.disabled.clone(),
        }
    }

    async fn add(&mut self, request: HookRequest, programs: bool) -> Result<HookView, CommandError> {
        let bad = |message: String| CommandError::new(ErrorCode::BadRequest, message);
        let HookRequest { name, mut events, target, program } = request;
        if self.hooks.hooks.len() >= HOOKS {
            return Err(
                bad(format!("there are {HOOKS} hooks already, which is the most")).hint("souk hook remove NAME")
            );
        }
        let id = self.hooks.next_id.max(1);
        let name = match name {
            Some(name) => name,
            None => self.free_name(),
        };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(fits) {
            return Err(bad(format!("a hook's name is 1 to {NAME_BYTES} of a-z, 0-9, - and _")));
        }
        if self.hooks.hooks.iter().any(|h| h.name == name) {
            return Err(bad(format!("there is a hook `{name}` already")).hint(format!("souk hook remove {name}")));
        }
        if events.contains(&EventKind::Test) {
            return Err(bad("nobody can wait for tests".to_owned()).hint("souk hook test NAME"));
        }
        events.sort_unstable();
        events.dedup();
        let target = match (target, program) {
            (Some(text), None) => Target::of_text(&text),
            (None, Some(words)) => Target::of_words(words),
            (Some(_), Some(_)) | (None, None) => {
                return Err(bad("a hook has one target: a URL, or a program".to_owned()));
            }
        };
        let target = target.map_err(|e| bad(e.to_string()))?;
        if matches!(target, Target::Program(_)) && !programs {
            let message = "a program can be set only over the node's socket, not over its loopback address";
            return Err(
                CommandError::new(ErrorCode::Unauthorized, message).hint("souk hook add, on the node's machine")
            );
        }
        let hook = Hook { id, name, events, target, added: now(), disabled: None };
        let were = self.hooks.hooks.len();
        let before = self.hooks.clone();
        self.hooks.next_id = id + 1;
        self.hooks.hooks.push(hook.clone());
        if let Err(error) = self.save_hooks().await {
            self.hooks = before;
            return Err(CommandError::new(ErrorCode::Internal, format!("the hook can't be saved: {error}")));
        }
        self.queues.insert(id, Queue::default());
        self.hooks_changed(were).await;
        tracing::info!(hook = %hook.name, target = %hook.target, "a hook was added");
        Ok(self.view(&hook))
    }

    fn free_name(&self) -> String {
        let taken = |name: &String| self.hooks.hooks.iter().any(|h| h.name == *name);
        let mut names = (1..=HOOKS + 1).map(|n| format!("hook{n}"));
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    async fn remove(&mut self, name: &str) -> Result<HookView, CommandError> {
        let hook = self.find(name)?;
        let view = self.view(&hook);
        let (were, before) = (self.hooks.hooks.len(), self.hooks.clone());
        self.hooks.hooks.retain(|h| h.id != hook.id);
        if let Err(error) = self.save_hooks().await {
            self.hooks = before;
            return Err(CommandError::new(ErrorCode::Internal, format!("the hooks can't be saved: {error}")));
        }
        self.forget(hook.id).await;
        self.queues.remove(&hook.id);
        self.hooks_changed(were).await;
        tracing::info!(hook = %hook.name, "a hook was removed");
        Ok(view)
    }

    fn test(&mut self, name: &str, reply: Reply<HookDelivery>) {
        let begun = self.find(name).and_then(|hook| {
            if self.tests() >= TESTS {
                return Err(CommandError::new(ErrorCode::Busy, format!("{TESTS} tests are under way already"))
                    .hint("ask again in a few seconds"));
            }
            self.test_event(&hook).map(|event| (hook, event))
        });
        match begun {
            Ok((hook, event)) => self.attempt(&hook, event, Some(reply)),
            Err(error) => {
                reply.send(Err(error)).ok();
            }
        }
    }
}
