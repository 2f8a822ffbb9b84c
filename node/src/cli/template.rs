//! `souk template`, and what `--template` means to other commands.
//!
//! A template may come from anywhere: what it says is shown before it is rented with, and never reaches a terminal unfiltered.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use rustix::termios::{self, LocalModes, OptionalActions};
use serde_json::json;
use souk_protocol::resources::Egress;

use super::{
    Context,
    args::{RentArgs, RunArgs, TemplateCommand, TemplateNewArgs},
    error::Failure,
    output::{self, Align, Table},
    rent,
};
use crate::{
    api::{
        client::escape,
        types::{RentRequest, RentalKind},
    },
    market::ErrorCode,
    template::{
        Template, TemplateError,
        store::{self, Store, StoreError},
    },
};

/// Bytes of a value that is asked for.
const VALUE_BYTES: u64 = 64 * 1024;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            StoreError::Missing(_) => failure
                .code(ErrorCode::NotFound)
                .hint("souk template list shows what is kept here; a file's name has a / or ends in .json"),
            StoreError::Ambiguous(..) => failure.code(ErrorCode::BadRequest).hint("more digits of the id, or a name"),
            StoreError::Taken(_) => failure.code(ErrorCode::WrongState).hint("another name, or --force to replace it"),
            StoreError::Name(_) => failure.code(ErrorCode::BadRequest).exit(2),
            StoreError::Template { .. } => failure.code(ErrorCode::BadRequest),
            StoreError::File { .. } => failure,
        }
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self::usage(error.to_string())
    }
}

pub(super) async fn template(context: &Context, command: TemplateCommand) -> Result<u8, Failure> {
    let store = Store::of(&context.dir);
    match command {
        TemplateCommand::New(args) => new(context, &store, *args).await,
        TemplateCommand::List => list(context, &store),
        TemplateCommand::Show { template } => {
            let found = store.find(&template)?;
            if context.json {
                output::json(&json!({ "id": found.id().to_string(), "template": found }))?;
            } else {
                output::line(describe(&found))?;
            }
            Ok(0)
        }
        TemplateCommand::Rm { names } => {
            for name in &names {
                store.remove(name)?;
            }
            if context.json {
                output::json(&json!({ "removed": names }))?;
            }
            Ok(0)
        }
        TemplateCommand::Export { template, file } => {
            let found = store.find(&template)?;
            match file.filter(|file| file != Path::new("-")) {
                None => io::stdout().lock().write_all(&found.canonical())?,
                Some(file) => {
                    store::write(&file, &found)?;
                    told(context, &found, &file.display().to_string())?;
                }
            }
            Ok(0)
        }
        TemplateCommand::Import { name, force, file } => {
            let found = store::read(&file)?;
            let own = file.file_stem().and_then(|stem| stem.to_str()).filter(|stem| *stem != "-").map(str::to_owned);
            let name = name.or(own).ok_or_else(|| Failure::usage("it needs a name").hint("--name NAME"))?;
            store.keep(&name, &found, force)?;
            told(context, &found, &name)?;
            Ok(0)
        }
    }
}

fn told(context: &Context, template: &Template, name: &str) -> Result<(), Failure> {
    if context.json {
        output::json(&json!({ "id": template.id().to_string(), "name": name }))
    } else {
        output::line(format!("{} {}", template.id(), output::plain(name)))
    }
}

async fn new(context: &Context, store: &Store, args: TemplateNewArgs) -> Result<u8, Failure> {
    let TemplateNewArgs { to, from, description, force, rent: super::args::TemplateRentArgs(mut rent) } = args;
    let wrong = [
        (rent.ask.is_some(), "ask: its search conditions name the kind of machine (--query)"),
        (rent.template.is_some(), "template; copy one with export and import"),
        (rent.standing.wait || rent.standing.failover || rent.standing.wait_for.is_some(), "standing order"),
        (rent.standing.patience.is_some(), "standing order"),
        (rent.detach || rent.yes, "-d or -y"),
    ];
    if let Some((_, what)) = wrong.iter().find(|(given, _)| *given) {
        return Err(Failure::usage(format!("a template holds no {what}")));
    }
    let mut env = BTreeMap::new();
    for given in std::mem::take(&mut rent.env) {
        let (name, value) = given.split_once('=').unwrap_or((&given, ""));
        env.insert(name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty()));
    }
    let (query, order) = (rent.standing.query.take(), rent.standing.order.take());
    let mut request = rent::request(rent, None)?;
    let mut begun = Template::default();
    if let Some(id) = from {
        begun = context.client()?.get(&format!("leases/{}/template", escape(&id))).await?;
        for (name, value) in &begun.env {
            env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let mut without = begun.clone();
        without.env.clear();
        let _ = without.complete(&mut request);
    }
    if request.image.is_empty() {
        return Err(Failure::usage("a template names an image").hint("--image IMAGE, or --from ID"));
    }
    let mut template = Template::of(request, env)?;
    template.description = description;
    template.query = query.or(begun.query);
    template.order = order.or(begun.order);
    template.check()?;
    if to == "-" {
        io::stdout().lock().write_all(&template.canonical())?;
    } else if store::is_file(&to) {
        let path = Path::new(&to);
        if path.exists() && !force && store::read(path).ok().as_ref() != Some(&template) {
            return Err(Failure::from(StoreError::Taken(to)));
        }
        store::write(path, &template)?;
        told(context, &template, &to)?;
    } else {
        store.keep(&to, &template, force)?;
        told(context, &template, &to)?;
    }
    Ok(0)
}

fn list(context: &Context, store: &Store) -> Result<u8, Failure> {
    let kept = store.list()?;
    if context.json {
        let row = |kept: &store::Kept| match &kept.template {
            Ok(template) => json!({ "name": kept.name, "id": template.id().to_string(), "template": template }),
            Err(error) => json!({ "name": kept.name, "error": error }),
        };
        output::json(&kept.iter().map(row).collect::<Vec<_>>())?;
        return Ok(0);
    }
    if kept.is_empty() {
        output::note("no templates are kept here; souk template new NAME --image IMAGE makes one");
        return Ok(0);
    }
    let heads = [("NAME", Align::Left), ("ID", Align::Left), ("IMAGE", Align::Left), ("DESCRIPTION", Align::Left)];
    let mut table = Table::new(&heads);
    for kept in kept {
        let [id, image, description] = match kept.template {
            Ok(t) => [t.id().short(), output::cut(&t.image, 40), t.description.unwrap_or_default()],
            Err(error) => [String::from("-"), String::new(), error],
        };
        table.row([kept.name, id, image, output::cut(&description, 80)]);
    }
    output::line(table.text())?;
    Ok(0)
}

/// All that a template does, for a person to read before renting with it: a value with lines of its own has a column of its own.
pub(super) fn describe(template: &Template) -> String {
    let words = |words: &Option<Vec<String>>| words.as_ref().map(|words| line_of(words)).unwrap_or_default();
    let runs = match (&template.command, &template.entrypoint, template.jupyter) {
        (_, _, true) => "the image's Jupyter".to_owned(),
        (None, None, false) => "the image's own command".to_owned(),
        (command, _, false) => words(command),
    };
    let (mut given, mut asked) = (Vec::new(), Vec::new());
    for (name, value) in &template.env {
        match value {
            Some(value) => given.push(format!("{name}={value}")),
            None => asked.push(name.clone()),
        }
    }
    let rows = [
        ("template", template.id().to_string()),
        ("for", template.description.clone().unwrap_or_default()),
        ("image", template.image.clone()),
        ("entrypoint", words(&template.entrypoint)),
        ("runs", runs),
        ("as user", template.user.clone().unwrap_or_default()),
        ("in", template.workdir.clone().unwrap_or_default()),
        ("public ports", template.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        ("at each start", template.onstart.clone().unwrap_or_default()),
        ("variables", given.join("\n")),
        ("asks for", asked.join("\n")),
        (
            "reaches",
            match template.egress {
                None => "what the host grants at most".to_owned(),
                Some(Egress::Internet) => "public addresses".to_owned(),
                Some(Egress::Full) => "all that the host reaches, its LAN included".to_owned(),
                Some(Egress::None) => "nothing".to_owned(),
            },
        ),
        ("disk", template.disk_mb.map(output::megabytes).unwrap_or_default()),
        (
            "rented",
            template
                .rental
                .map(|kind| match kind {
                    RentalKind::OnDemand => "on demand",
                    RentalKind::Bid => "by bid",
                    RentalKind::Reserved => "reserved",
                })
                .unwrap_or_default()
                .to_owned(),
        ),
        ("for a time of", template.term_ms.map(|term| term.to_string()).unwrap_or_default()),
        ("on machines", template.query.clone().unwrap_or_default()),
        ("first", template.order.clone().unwrap_or_default()),
    ];
    columns(&rows)
}

fn columns(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> = rows.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        for (n, line) in value.split('\n').enumerate() {
            let head = if n == 0 { name } else { "" };
            text.push_str(format!("{head:<width$}  {}", output::plain(line)).trim_end());
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}

/// Words as a shell would take them.
fn line_of(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The template that `--template` names.
pub(super) fn named(context: &Context, what: Option<&str>) -> Result<Option<Template>, Failure> {
    Ok(what.map(|what| Store::of(&context.dir).find(what)).transpose()?)
}

/// Takes the machines a rental is for from its template, where nothing else names them.
pub(super) fn aim(args: &mut RentArgs, template: &Template) {
    if args.ask.is_none() {
        args.standing.query = args.standing.query.take().or_else(|| template.query.clone());
    }
    if args.standing.query.is_some() {
        args.standing.order = args.standing.order.take().or_else(|| template.order.clone());
    }
}

/// Completes a rental by its template, and asks for what the template leaves to the renter.
pub(super) fn complete(request: &mut RentRequest, template: &Template) -> Result<(), Failure> {
    let missing = template.clone().complete(request);
    for name in missing {
        let value = ask_for(&name)?;
        request.env.0.push((name, value));
    }
    Ok(())
}

/// Completes a run by its template.
pub(super) fn complete_run(args: &mut RunArgs, template: Template) -> Result<(), Failure> {
    if template.onstart.is_some() {
        return Err(Failure::usage(
            "the template has a script for each start, and souk run starts its command at once",
        )
        .hint("souk rent --template TEMPLATE, and then souk exec"));
    }
    args.query = template.query_with(&args.query);
    args.order = args.order.take().or_else(|| template.order.clone());
    let mut request = rent::run_request(args)?;
    // A run has no entrypoint: what a template has of one begins its command.
    let words = template.entrypoint.iter().chain(&template.command).flatten().cloned();
    if args.command.is_empty() {
        args.command = words.collect();
    }
    if args.command.is_empty() {
        let what = if template.jupyter { "Jupyter" } else { "the image's own command" };
        return Err(Failure::usage(format!("the template runs {what}, and souk run needs a command"))
            .hint("souk run --template TEMPLATE -- CMD, or souk rent --template TEMPLATE"));
    }
    let known = request.env.0.len();
    complete(&mut request, &template)?;
    args.image = Some(request.image).filter(|image| !image.is_empty());
    args.env.extend(request.env.0.drain(known..).map(|(name, value)| format!("{name}={value}")));
    args.user = request.user;
    args.workdir = request.workdir;
    args.disk = request.disk_mb.map(|mb| mb.div_ceil(1000));
    args.egress = request.egress.map(Into::into);
    Ok(())
}

/// Shows a person what a template is about to do.
pub(super) fn announce(context: &Context, template: &Template) {
    if !context.json {
        output::note(describe(template));
    }
}

/// Asks for a variable's value on the terminal, without showing it. Nothing is taken from this shell's own variables unasked: a template
/// may name any of them.
fn ask_for(name: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("the template leaves the variable {name} to you"))
            .hint(format!("-e {name}=VALUE, or -e {name} for this shell's")));
    }
    write!(io::stderr().lock(), "{name}: ")?;
    let before = termios::tcgetattr(&stdin).map_err(io::Error::from)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    termios::tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(io::Error::from)?;
    let mut value = String::new();
    let read = io::Read::take(stdin.lock(), VALUE_BYTES).read_line(&mut value);
    termios::tcsetattr(&stdin, OptionalActions::Now, &before).map_err(io::Error::from)?;
    output::note("");
    read?;
    let value = value.trim_end_matches(['\n', '\r']).to_owned();
    if value.is_empty() { Err(Failure::new(format!("{name} was left empty; nothing was rented"))) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_template_says_is_shown_whole_and_moves_no_cursor() {
        let script = "echo ok\n\u{1b}[2Jrm -rf /workspace".to_owned();
        let template = Template {
            souk_template: crate::template::VERSION,
            image: "debian:12".to_owned(),
            command: Some(vec!["sh".to_owned(), "-c".to_owned(), script]),
            env: [("A".to_owned(), Some("1\n2".to_owned())), ("KEY".to_owned(), None)].into(),
            ..Template::default()
        };
        let shown = describe(&template);
        assert!(shown.contains("?[2Jrm -rf /workspace'"), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        assert!(shown.contains("asks for   KEY") && shown.contains("A=1\n           2"), "{shown}");
    }
}
