//! What a stretch of work has cost: the callbacks into the VM, its calls back to the host, and the
//! instructions in between.

use std::collections::BTreeMap;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The callbacks of Proxy-Wasm, by role and name.
    pub callbacks: BTreeMap<String, u64>,
    /// The host calls, by name and what they were about.
    pub calls: BTreeMap<String, u64>,
    /// How often the host called back into the VM for memory, to return something.
    pub allocations: u64,
    /// Bytes that were copied into the VM.
    pub bytes_in: u64,
    /// Bytes that were copied out of the VM.
    pub bytes_out: u64,
    /// Instructions of WebAssembly by callback, with what they cause; one for every 64 bytes that a
    /// single instruction copies.
    pub fuel: BTreeMap<String, u64>,
    /// Host calls and ends of callbacks in order, each with the instructions since the one before.
    pub steps: Vec<(String, u64)>,
    /// How much of the fuel of the callback that runs is in the steps.
    stepped: u64,
}

impl Cost {
    /// How many callbacks there were.
    pub fn callback_count(&self) -> u64 {
        self.callbacks.values().sum()
    }

    /// How many host calls there were.
    pub fn call_count(&self) -> u64 {
        self.calls.values().sum()
    }

    /// How many instructions there were.
    pub fn total_fuel(&self) -> u64 {
        self.fuel.values().sum()
    }

    /// How many host calls there were whose description begins so.
    pub fn calls_of(&self, prefix: &str) -> u64 {
        self.calls.iter().filter(|(call, _)| call.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// The steps as text: a line for each, its instructions before it.
    pub fn trace(&self) -> String {
        self.steps.iter().map(|(step, fuel)| format!("{fuel:>10}  {step}\n")).collect()
    }

    /// Counts a host call that comes after so much fuel of its callback.
    pub(crate) fn count_call(&mut self, name: &str, about: &str, fuel: u64) {
        let call = if about.is_empty() { name.to_owned() } else { format!("{name} {about}") };
        self.steps.push((call.clone(), fuel.saturating_sub(self.stepped)));
        self.stepped = fuel;
        *self.calls.entry(call).or_default() += 1;
    }

    pub(crate) fn count_callback(&mut self, role: &str, name: &str, fuel: u64) {
        let name = format!("{role} {}", name.strip_prefix("proxy_").unwrap_or(name));
        self.steps.push((format!("= {name}"), fuel.saturating_sub(self.stepped)));
        self.stepped = 0;
        *self.callbacks.entry(name.clone()).or_default() += 1;
        *self.fuel.entry(name).or_default() += fuel;
    }
}

/// What the rows of a table of shared data have in common: its key without hexadecimal digits and
/// numbers behind the last slash.
pub(crate) fn class_of_key(key: &str) -> String {
    match key.rsplit_once('/') {
        Some((table, row)) if row.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{table}/*")
        }
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table_count_together() {
        assert_eq!(class_of_key("session_affinity/binding/12"), "session_affinity/binding/*");
        assert_eq!(
            class_of_key("session_affinity/credential/0f3c"),
            "session_affinity/credential/*"
        );
        assert_eq!(class_of_key("session_affinity/seed"), "session_affinity/seed");
    }

    #[test]
    fn calls_are_counted_by_what_they_are_about() {
        let mut cost = Cost::default();
        cost.count_call("get_property", "plan", 10);
        cost.count_call("get_property", "plan", 25);
        cost.count_call("get_buffer", "", 26);
        cost.count_callback("listener", "proxy_on_log", 30);
        assert_eq!(cost.calls["get_property plan"], 2);
        assert_eq!((cost.call_count(), cost.calls_of("get_property")), (3, 2));
        assert_eq!(cost.total_fuel(), 30);
        assert_eq!(
            cost.trace(),
            "        10  get_property plan\n        15  get_property plan\n         \
             1  get_buffer\n         4  = listener on_log\n"
        );
    }
}
