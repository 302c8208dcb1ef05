//! What the files define: listeners, clusters, routes and secrets, wherever they are. A bootstrap
//! has them under `static_resources`, an answer of a control plane or a file for LDS under
//! `resources`, `/config_dump` under `configs`.

use super::document::Cursor;

/// The resources of all files.
#[derive(Debug, Default)]
pub(super) struct Resources<'d> {
    pub(super) listeners: Vec<Cursor<'d>>,
    pub(super) clusters: Vec<Cursor<'d>>,
    pub(super) routes: Vec<Cursor<'d>>,
    pub(super) secrets: Vec<Cursor<'d>>,
    /// Filters that come by extension discovery.
    extensions: Vec<Cursor<'d>>,
}

impl<'d> Resources<'d> {
    pub(super) fn collect(roots: impl Iterator<Item = Cursor<'d>>) -> Self {
        let mut resources = Self::default();
        roots.for_each(|root| resources.add(&root));
        resources
    }

    fn add(&mut self, cursor: &Cursor<'d>) {
        let list = match (cursor.type_name(), cursor) {
            ("Listener", _) => &mut self.listeners,
            ("Cluster", _) => &mut self.clusters,
            ("RouteConfiguration", _) => &mut self.routes,
            ("Secret", _) => &mut self.secrets,
            ("TypedExtensionConfig", _) => &mut self.extensions,
            (_, bare) if bare.get("filter_chains").exists() => &mut self.listeners,
            (_, bare) if bare.get("virtual_hosts").exists() => &mut self.routes,
            (_, bare) if is_cluster(bare) => &mut self.clusters,
            _ => {
                cursor.elements().for_each(|element| self.add(&element));
                cursor.members().for_each(|(name, member)| match name {
                    "static_resources" | "staticResources" => self.add_static(&member),
                    _ => self.add(&member),
                });
                return;
            }
        };
        list.push(cursor.clone());
    }

    /// Here the name of the list says what its elements are.
    fn add_static(&mut self, resources: &Cursor<'d>) {
        self.listeners.extend(resources.get("listeners").elements());
        self.clusters.extend(resources.get("clusters").elements());
        self.secrets.extend(resources.get("secrets").elements());
    }

    pub(super) fn cluster(&self, name: &str) -> Option<&Cursor<'d>> {
        self.clusters.iter().find(|cluster| cluster.get("name").is(name))
    }

    /// The type and the configuration of a filter, also if it comes by extension discovery.
    pub(super) fn filter(&self, filter: &Cursor<'d>) -> (&'d str, Cursor<'d>) {
        let name = filter.get("name").text();
        let discovered = filter.get("config_discovery").exists();
        let extension =
            self.extensions.iter().find(|it| discovered && it.get("name").text() == name);
        extension.unwrap_or(filter).typed_config()
    }
}

fn is_cluster(cursor: &Cursor<'_>) -> bool {
    cursor.get("name").exists()
        && ["connect_timeout", "load_assignment", "lb_policy"]
            .iter()
            .any(|member| cursor.get(member).exists())
}
