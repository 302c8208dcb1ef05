//! Groups of accounts: what one organization and workspace (or project) of a vendor shares.
//!
//! A group has one prompt cache and one store of objects. Its name is `organization/workspace`;
//! without a slash it is an organization with this one workspace. By default every account is a
//! group of its own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use super::cache::PromptCache;
use super::lock::locked;
use super::objects::ObjectStore;
use super::vendor::{Account, Vendor};

/// Prefixes per group; at 128 tokens each, about 33 million tokens.
const CACHE_CAPACITY: usize = 262_144;

/// What the accounts of a group share.
#[derive(Debug)]
pub(super) struct Group {
    vendor: Vendor,
    name: String,
    pub(super) cache: Mutex<PromptCache>,
    pub(super) objects: Mutex<ObjectStore>,
}

impl Group {
    pub(super) fn new(vendor: Vendor, name: &str) -> Self {
        Self {
            vendor,
            name: name.to_owned(),
            cache: Mutex::new(PromptCache::new(CACHE_CAPACITY)),
            objects: Mutex::default(),
        }
    }

    /// The part of the name that groups with common ciphertext share.
    pub(super) fn organization(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The headers of every authenticated response that tell whose account it is.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let organization = digits(&(self.vendor, self.organization()));
        let workspace = digits(&(self.vendor, &self.name, "workspace"));
        match self.vendor {
            Vendor::Anthropic => vec![
                ("anthropic-organization-id", uuid(&organization)),
                ("anthropic-workspace-id", format!("wrkspc_{workspace}")),
            ],
            Vendor::OpenAi => vec![
                ("openai-organization", format!("org-{organization}")),
                ("openai-project", format!("proj_{workspace}")),
            ],
            Vendor::Gemini => vec![],
        }
    }
}

/// All groups, and the accounts that a test has moved.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    moved: HashMap<String, String>,
    groups: HashMap<(Vendor, String), Arc<Group>>,
}

impl Groups {
    /// The group of an account.
    pub(super) fn of(&self, account: &Account) -> Arc<Group> {
        let mut book = locked(&self.0);
        let name = book.moved.get(&account.name).unwrap_or(&account.group).clone();
        let group = book.groups.entry((account.vendor, name));
        Arc::clone(group.or_insert_with_key(|(vendor, name)| Arc::new(Group::new(*vendor, name))))
    }

    /// Moves an account, which leaves its old state behind.
    pub(super) fn move_to(&self, account: &str, group: &str) {
        locked(&self.0).moved.insert(account.to_owned(), group.to_owned());
    }
}

/// Digits that are the same on every run.
fn digits(value: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let first = hasher.finish();
    first.hash(&mut hasher);
    format!("{first:016x}{:016x}", hasher.finish())
}

fn uuid(digits: &str) -> String {
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_of_an_organization_share_its_id_only() {
        let [a, b, other] =
            ["acme/a", "acme/b", "other"].map(|name| Group::new(Vendor::Anthropic, name).headers());
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
        assert_ne!(a[0], other[0]);
        assert_eq!(a[0].1.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }

    #[test]
    fn an_account_is_in_a_group_of_its_own_until_it_is_moved() {
        let groups = Groups::default();
        let [a, b] = ['a', 'b'].map(|letter| Account::demo(Vendor::OpenAi, letter));
        assert!(!Arc::ptr_eq(&groups.of(&a), &groups.of(&b)));
        groups.move_to("openai-a", "acme");
        groups.move_to("openai-b", "acme");
        assert!(Arc::ptr_eq(&groups.of(&a), &groups.of(&b)));
        let anthropic = Account { group: "acme".into(), ..Account::demo(Vendor::Anthropic, 'a') };
        assert!(!Arc::ptr_eq(&groups.of(&a), &groups.of(&anthropic)));
    }
}
