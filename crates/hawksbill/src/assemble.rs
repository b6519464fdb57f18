//! From a configuration to turtles: one root for each socket.

use std::collections::HashMap;

use hawksbill_core::config::{HostPattern, Listen};
use hawksbill_core::{App, BuildError, Builder, Error, Generation, Kind, Turtle};
use hawksbill_router::{Routes, Sites};

use crate::config::{AppNode, Config, LayerNode, Route, Site, Stack, Target, place};

/// A configuration that has become turtles.
pub(crate) struct Assembly {
    /// What answers on each socket that the configuration names.
    pub(crate) roots: Vec<(Listen, Turtle)>,
    /// What answers on a socket that is handed in: the sites without sockets of their own.
    pub(crate) root: Turtle,
    /// The named applications, without the layers of any route.
    pub(crate) apps: HashMap<String, Turtle>,
    /// What has to be started and stopped with them.
    pub(crate) generation: Generation,
}

/// Builds every application once, every route, and one table of sites for each socket.
///
/// A site with a `listen` of its own is in the tables of those sockets alone, so nothing that a client sends can
/// reach it through another one.
///
/// The applications in `elsewhere` are not built, nor need they be configured: other processes have them.
pub(crate) fn assemble(
    config: Config,
    mut elsewhere: HashMap<String, Turtle>,
) -> Result<Assembly, BuildError> {
    let sockets = config.sockets();
    let Config { dir, settings, layers, apps, sites, .. } = config;
    let mut cx = Builder::new(dir);
    let names: Vec<String> = apps.keys().cloned().collect();
    for (name, AppNode { app, origin, .. }) in apps {
        if let Some(turtle) = elsewhere.remove(&name) {
            cx.add_turtle(name, turtle);
            continue;
        }
        note(&*app, &name, &mut cx);
        let place = place(&origin, &format!("apps.{name}"));
        cx.add_app(name, place, app);
    }
    for (name, turtle) in elsewhere {
        cx.add_turtle(name, turtle);
    }
    let mut built = Vec::with_capacity(sites.len());
    for site in sites {
        built.push(BuiltSite::build(site, &layers, &mut cx)?);
    }
    // An application that no route leads to is built all the same: its mistakes are to be seen now, not later.
    let named = names.into_iter().map(|name| {
        let turtle = cx.named(&name)?;
        Ok((name, turtle))
    });
    let named = named.collect::<Result<_, BuildError>>()?;

    let no_site = stack(&[&layers], Turtle::from_fn(async |_| Err(Error::new(Kind::Misdirected))), &mut cx)?;
    let no_site = no_site.metered(cx.vitals().meter("", ""));
    let shared: Vec<Listen> = settings.listen.into();
    let table = |listen: Option<&Listen>| {
        let reachable = built.iter().filter(|site| match listen {
            Some(listen) if site.listen.is_empty() => shared.contains(listen),
            Some(listen) => site.listen.contains(listen),
            None => site.listen.is_empty(),
        });
        sites_of(reachable, no_site.clone())
    };
    let mut roots = Vec::with_capacity(sockets.len());
    for listen in &sockets {
        roots.push((listen.clone(), table(Some(listen))?));
    }
    let root = table(None)?;
    Ok(Assembly { roots, root, apps: named, generation: cx.finish() })
}

/// Notes that an application is ready: it runs in this process, which serves only once all of them have started.
fn note(app: &dyn App, name: &str, cx: &mut Builder) {
    if app.has_processes() {
        cx.vitals().readiness().application(name, || true);
    }
}

struct BuiltSite {
    name: String,
    place: String,
    hosts: Vec<HostPattern>,
    listen: Vec<Listen>,
    turtle: Turtle,
}

impl BuiltSite {
    fn build(site: Site, whole: &Stack, cx: &mut Builder) -> Result<Self, BuildError> {
        let Site { name, hosts, listen, layers, routes, origin } = site;
        let at = place(&origin, &format!("sites.\"{name}\""));
        let turtle = cx.in_site(name.clone(), |cx| {
            let mut table = Routes::builder();
            for route in routes {
                let Route { path, target, mount, layers: own, origin } = route;
                let at = place(&origin, &format!("sites.\"{name}\".\"{path}\""));
                let called = called(&target, &name, &path);
                let app = cx.at(at.clone(), |cx| match target {
                    Target::Named(app) => cx.named(&app),
                    Target::Inline(app) => {
                        note(&*app, &format!("{name}{path}"), cx);
                        app.build(cx)
                    }
                })?;
                let turtle = stack(&[whole, &layers, &own], app, cx)?;
                let turtle = turtle.metered(cx.vitals().meter(name.clone(), called));
                table = if mount { table.mount(path, turtle) } else { table.route(path, turtle) };
            }
            let nothing = Turtle::from_fn(async |_| Err(Error::new(Kind::NotFound)));
            let nothing = stack(&[whole, &layers], nothing, cx)?;
            let nothing = nothing.metered(cx.vitals().meter(name.clone(), ""));
            table
                .not_found(nothing)
                .build()
                .map_err(|error| BuildError::new(error.to_string()).within(at.clone()))
        })?;
        Ok(Self { name, place: at, hosts, listen, turtle: Turtle::from(turtle) })
    }
}

/// What counts as one application in the figures: what has a name, or processes and so gets one
/// (`Config::name_inline`); else all of a kind.
fn called(target: &Target, site: &str, path: &str) -> String {
    match target {
        Target::Named(name) => name.clone(),
        Target::Inline(app) if app.has_processes() => format!("{site}{path}"),
        Target::Inline(app) => app.name().to_owned(),
    }
}

fn sites_of<'a>(built: impl Iterator<Item = &'a BuiltSite>, no_site: Turtle) -> Result<Turtle, BuildError> {
    let built: Vec<&BuiltSite> = built.collect();
    let mut table = Sites::builder();
    for site in &built {
        table = table.site(site.name.clone(), site.hosts.clone(), site.turtle.clone());
    }
    let sites = table.no_site(no_site).build().map_err(|error| {
        let later = built.iter().rfind(|site| site.name == error.second);
        let message = BuildError::new(error.to_string());
        match later {
            Some(site) => message.within(site.place.clone()),
            None => message,
        }
    })?;
    Ok(Turtle::from(sites))
}

/// Puts the layers of some levels (outermost level first) over a turtle. From the outside in: the short keys, the
/// innermost setting of each, in the order of the registry; then the lists, level by level; then the turtle.
fn stack(levels: &[&Stack], inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError> {
    let lists = levels.iter().flat_map(|level| &level.list);
    let outside_in: Vec<&LayerNode> = Stack::effective(levels).into_iter().chain(lists).collect();
    outside_in.into_iter().rev().try_fold(inner, |inner, node| {
        let at = place(&node.origin, node.layer.name());
        cx.at(at, |cx| node.layer.wrap(inner, cx))
    })
}
