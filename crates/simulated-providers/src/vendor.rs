//! The vendors, their accounts and their addresses, as `envoy.yaml` expects them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};

/// A vendor, whose API a server implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vendor {
    /// Messages.
    Anthropic,
    /// Chat Completions and Responses.
    OpenAi,
    /// generateContent.
    Gemini,
}

impl Vendor {
    /// In the order of their ports.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Gemini];

    /// The name that begins the names of its accounts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Gemini => "gemini",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a vendor knows a credential of the gateway by: one key, one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The server that knows it.
    pub vendor: Vendor,
    /// Unique over all vendors.
    pub name: String,
    /// The bare API key.
    pub key: String,
    /// What it shares its prompt cache and its state with: `organization/workspace`, or only an
    /// organization. The name of the account if it is alone.
    pub group: String,
}

impl Account {
    /// An account of the demo: `anthropic-a` has the key `sk-ant-simulated-a`.
    pub(super) fn demo(vendor: Vendor, letter: char) -> Self {
        let prefix = match vendor {
            Vendor::Anthropic => "sk-ant",
            Vendor::OpenAi => "sk",
            Vendor::Gemini => "AIza",
        };
        Self {
            vendor,
            name: format!("{vendor}-{letter}"),
            key: format!("{prefix}-simulated-{letter}"),
            group: format!("{vendor}-{letter}"),
        }
    }

    /// The environment variable from which `envoy.yaml` takes this account's secret, and its value:
    /// the whole value of the header that carries the key.
    pub fn environment(&self) -> (String, String) {
        let name = self.name.to_uppercase().replace('-', "_");
        match self.vendor {
            Vendor::OpenAi => (format!("{name}_AUTHORIZATION"), format!("Bearer {}", self.key)),
            Vendor::Anthropic | Vendor::Gemini => (format!("{name}_KEY"), self.key.clone()),
        }
    }
}

/// A self-hosted replica: a server of its own, with one prompt cache, that speaks OpenAI's API and
/// takes any key or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Unique among replicas and accounts.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Replica {
    /// The replicas of `examples/replicas.yaml`, at the addresses given there.
    pub fn demo() -> Vec<Self> {
        let replicas = [('a', 18011), ('b', 18012), ('c', 18013)].map(|(letter, port)| Self {
            name: format!("replica-{letter}"),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        });
        replicas.into()
    }

    /// The same on a free port.
    pub fn on_free_port(mut self) -> Self {
        self.address.set_port(0);
        self
    }

    /// Its account, the key of which does not matter.
    pub(super) fn account(&self) -> Account {
        Account {
            vendor: Vendor::OpenAi,
            name: self.name.clone(),
            key: String::new(),
            group: self.name.clone(),
        }
    }
}

/// Where each vendor's server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// 18001 in `envoy.yaml`.
    pub anthropic: SocketAddr,
    /// 18002 in `envoy.yaml`.
    pub openai: SocketAddr,
    /// 18003 in `envoy.yaml`.
    pub gemini: SocketAddr,
}

impl Addresses {
    /// The ports of `envoy.yaml` on an address of this machine.
    pub fn on(host: IpAddr) -> Self {
        let [anthropic, openai, gemini] =
            [18001, 18002, 18003].map(|port| SocketAddr::new(host, port));
        Self { anthropic, openai, gemini }
    }

    /// Free ports on loopback.
    pub fn any() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { anthropic: any, openai: any, gemini: any }
    }

    /// The address of one of them.
    pub fn of(&self, vendor: Vendor) -> SocketAddr {
        match vendor {
            Vendor::Anthropic => self.anthropic,
            Vendor::OpenAi => self.openai,
            Vendor::Gemini => self.gemini,
        }
    }

    pub(super) fn of_mut(&mut self, vendor: Vendor) -> &mut SocketAddr {
        match vendor {
            Vendor::Anthropic => &mut self.anthropic,
            Vendor::OpenAi => &mut self.openai,
            Vendor::Gemini => &mut self.gemini,
        }
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into())
    }
}

/// Names must distinguish accounts and replicas, and keys accounts.
pub(super) fn check(accounts: &[Account], replicas: &[Replica]) -> Result<()> {
    let (mut names, mut keys) = (HashSet::new(), HashSet::new());
    for replica in replicas {
        ensure!(
            names.insert(&replica.name),
            "two simulated replicas are called `{}`",
            replica.name
        );
    }
    for account in accounts {
        ensure!(
            names.insert(&account.name),
            "two simulated accounts are called `{}`",
            account.name
        );
        ensure!(
            keys.insert((account.vendor, &account.key)),
            "`{}` has the key of another account",
            account.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Providers;
    use super::*;

    #[test]
    fn the_demo_accounts_are_those_of_envoy_yaml() {
        let yaml = include_str!("../../../envoy.yaml");
        let accounts = Providers::demo_accounts();
        assert_eq!(yaml.matches("environment_variable: ").count(), accounts.len());
        for account in &accounts {
            let (variable, value) = account.environment();
            assert!(yaml.contains(&format!("environment_variable: {variable}}}")), "{variable}");
            assert!(yaml.contains(&format!("{{id: {}, ", account.name)), "{}", account.name);
            assert!(value.ends_with(&account.key));
        }
        for vendor in Vendor::ALL {
            assert!(
                yaml.contains(&format!("port_value: {}", Addresses::default().of(vendor).port()))
            );
        }
    }

    #[test]
    fn the_demo_replicas_are_those_of_the_example() {
        let yaml = include_str!("../../../examples/replicas.yaml");
        for replica in Replica::demo() {
            let credential = format!(
                "{{id: {}, cluster: replicas, endpoint: \"{}\"}}",
                replica.name, replica.address
            );
            assert!(yaml.contains(&credential), "{credential}");
        }
    }

    #[test]
    fn accounts_that_cannot_be_distinguished_are_refused() {
        let account = Account::demo(Vendor::OpenAi, 'a');
        let same_key = Account { name: "other".into(), ..account.clone() };
        let same_name =
            Replica { name: account.name.clone(), address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        assert!(check(&[account.clone(), account.clone()], &[]).is_err());
        assert!(check(&[account.clone(), same_key], &[]).is_err());
        assert!(check(&[account], std::slice::from_ref(&same_name)).is_err());
        assert!(check(&[], &[same_name.clone(), same_name]).is_err());
        assert!(check(&Providers::demo_accounts(), &Replica::demo()).is_ok());
    }
}
