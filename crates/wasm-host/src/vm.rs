//! One VM, as a worker of Envoy has one: the module, and the contexts in it.

use anyhow::{Context as _, Result, anyhow, ensure};
use wasmi::{CompilationMode, Config, Engine, Instance, Linker, Module as Compiled, Store, Val};

use crate::context::Context;
use crate::cost::Cost;
use crate::state::State;
use crate::{Clock, SharedData, abi, wasi};

/// Enough for any callback, and not so much that a sum overflows.
pub(crate) const FUEL: u64 = 1 << 60;

/// A module that is ready to run, any number of times.
#[derive(Clone, Debug)]
pub struct Module {
    engine: Engine,
    compiled: Compiled,
}

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// If it is not WebAssembly.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let mut config = Config::default();
        // Everything is translated at once: what is translated later would cost fuel.
        config.consume_fuel(true).compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let compiled = Compiled::new(&engine, bytes).context("this is no WebAssembly module")?;
        Ok(Self { engine, compiled })
    }
}

/// What a VM finds around it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The version of Envoy that it is shown, major and minor.
    pub envoy: (u64, u64),
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// The beginning of its random numbers.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { envoy: (1, 40), environment: Vec::new(), seed: 1 }
    }
}

/// A VM with a module in it. It lives until it is dropped; a trap does not replace it.
pub struct Vm {
    store: Store<State>,
    instance: Instance,
    last_id: u32,
}

/// A root context: a plugin as it is configured in one place.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub(crate) id: u32,
    pub(crate) role: &'static str,
    root_id: String,
    configuration: Vec<u8>,
}

impl Vm {
    /// Starts a VM.
    ///
    /// # Errors
    /// If the module needs what no host has, or traps as it starts.
    pub fn start(
        module: &Module,
        settings: Settings,
        shared: SharedData,
        clock: Clock,
    ) -> Result<Self> {
        let mut store = Store::new(&module.engine, State::new(settings, shared, clock));
        store.set_fuel(FUEL)?;
        let mut linker = Linker::new(&module.engine);
        linker.allow_shadowing(true);
        define_missing(&mut linker, &module.compiled)?;
        abi::define(&mut linker)?;
        wasi::define(&mut linker)?;
        let instance = linker.instantiate_and_start(&mut store, &module.compiled)?;
        let mut vm = Self { store, instance, last_id: 0 };
        vm.call("_initialize", &[], false)?;
        Ok(vm)
    }

    /// Configures a plugin; `role` is how counts name it.
    ///
    /// # Errors
    /// If the plugin refuses its configuration; the error has its log.
    pub fn configure(
        &mut self,
        role: &'static str,
        root_id: &str,
        configuration: &[u8],
    ) -> Result<Plugin> {
        let (root_id, configuration) = (root_id.to_owned(), configuration.to_owned());
        let size = configuration.len() as i32;
        let plugin = Plugin { id: self.next_id(), role, root_id, configuration };
        self.enter(&plugin, plugin.id);
        let id = plugin.id as i32;
        self.call("proxy_on_context_create", &[id, 0], false)?;
        self.call("proxy_on_vm_start", &[id, 0], true)?;
        let is_accepted = self.call("proxy_on_configure", &[id, size], true)? != 0;
        ensure!(is_accepted, "the plugin is refused:\n{}", self.log().join("\n"));
        Ok(plugin)
    }

    /// Lets the plugin's root context do what is due, if it has asked for that.
    ///
    /// # Errors
    /// If the module traps.
    pub fn tick(&mut self, plugin: &Plugin) -> Result<()> {
        if self.store.data().ticking.contains(&plugin.id) {
            self.callback(plugin, plugin.id, "proxy_on_tick", &[], false)?;
        }
        Ok(())
    }

    /// Ends a plugin: its root context is told, and goes.
    pub(crate) fn end(&mut self, plugin: &Plugin) -> Result<()> {
        self.callback(plugin, plugin.id, "proxy_on_done", &[], true)?;
        self.callback(plugin, plugin.id, "proxy_on_delete", &[], false)?;
        self.store.data_mut().ticking.remove(&plugin.id);
        Ok(())
    }

    pub(crate) fn open(&mut self, plugin: &Plugin, context: Context) -> Result<u32> {
        let id = self.next_id();
        self.store.data_mut().contexts.insert(id, context);
        self.callback(plugin, id, "proxy_on_context_create", &[plugin.id], false)?;
        Ok(id)
    }

    /// Ends a context; an attempt is not asked for its log.
    pub(crate) fn close(&mut self, plugin: &Plugin, id: u32, is_logged: bool) -> Result<()> {
        if is_logged {
            self.callback(plugin, id, "proxy_on_log", &[], false)?;
        }
        self.callback(plugin, id, "proxy_on_done", &[], true)?;
        self.callback(plugin, id, "proxy_on_delete", &[], false)?;
        self.store.data_mut().contexts.remove(&id);
        Ok(())
    }

    pub(crate) fn callback(
        &mut self,
        plugin: &Plugin,
        id: u32,
        name: &str,
        arguments: &[u32],
        has_result: bool,
    ) -> Result<i32> {
        self.enter(plugin, id);
        let arguments: Vec<_> =
            [id].iter().chain(arguments).map(|argument| *argument as i32).collect();
        let result = self.call(name, &arguments, has_result)?;
        let used = FUEL - self.store.get_fuel()?;
        self.store.data_mut().cost.count_callback(plugin.role, name, used);
        Ok(result)
    }

    pub(crate) fn context(&mut self, id: u32) -> Result<&mut Context> {
        self.store.data_mut().contexts.get_mut(&id).context("the context is gone")
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn enter(&mut self, plugin: &Plugin, id: u32) {
        let state = self.store.data_mut();
        state.effective = id;
        state.root_id.clone_from(&plugin.root_id);
        state.configuration.clone_from(&plugin.configuration);
    }

    fn call(&mut self, name: &str, arguments: &[i32], has_result: bool) -> Result<i32> {
        self.store.set_fuel(FUEL)?;
        // Envoy skips a callback that the module does not have.
        let Some(function) = self.instance.get_func(&self.store, name) else { return Ok(0) };
        let arguments: Vec<_> = arguments.iter().map(|argument| Val::I32(*argument)).collect();
        let mut results = vec![Val::I32(0); usize::from(has_result)];
        function.call(&mut self.store, &arguments, &mut results).map_err(|error| {
            anyhow!("{name} traps: {error}\n{}", self.store.data().log.join("\n"))
        })?;
        Ok(results.first().and_then(Val::i32).unwrap_or(0))
    }

    /// What was counted since the last time.
    pub fn take_cost(&mut self) -> Cost {
        std::mem::take(&mut self.store.data_mut().cost)
    }

    /// The log from `info` on: its first thousand lines.
    pub fn log(&self) -> &[String] {
        &self.store.data().log
    }

    /// The value of a counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.store.data().metrics.get(name)
    }

    /// The size of the VM's memory, which never shrinks.
    pub fn memory_size(&self) -> usize {
        let memory = self.instance.get_memory(&self.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }

    /// How many contexts of streams there are.
    pub fn open_contexts(&self) -> usize {
        self.store.data().contexts.len()
    }
}

/// The SDK imports more than a module calls. What no other definition replaces traps with its name.
fn define_missing(linker: &mut Linker<State>, module: &Compiled) -> Result<()> {
    for import in module.imports() {
        let Some(function) = import.ty().func() else { continue };
        let (namespace, name) = (import.module(), import.name());
        let message = format!("{namespace}.{name} is not simulated");
        linker.func_new(namespace, name, function.clone(), move |_, _, _| {
            Err(wasmi::Error::new(message.clone()))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(body: &str) -> Result<Vm> {
        let text = format!(
            r#"(module
                (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
                (import "env" "proxy_http_call"
                    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "random_get"
                    (func $random (param i32 i32) (result i32)))
                (memory (export "memory") 1)
                (data (i32.const 0) "plugin_root_id\00absent\00")
                (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 64))
                (func (export "proxy_on_configure") (param i32 i32) (result i32) {body}))"#
        );
        let module = Module::new(&wat::parse_str(text).unwrap()).unwrap();
        Vm::start(&module, Settings::default(), SharedData::default(), Clock::at(0))
    }

    fn cost_of(body: &str) -> Cost {
        let mut vm = vm(body).unwrap();
        vm.configure("role", "root", b"").unwrap();
        vm.take_cost()
    }

    #[test]
    fn memory_is_asked_for_only_where_there_is_something_to_return() {
        let found = cost_of(
            "(i32.eqz (call $get (i32.const 0) (i32.const 15) (i32.const 32) (i32.const 36)))",
        );
        // The path; the value, where it is and how long.
        assert_eq!((found.allocations, found.bytes_out, found.bytes_in), (1, 15, 4 + 8));
        assert_eq!(found.calls["get_property plugin_root_id"], 1);
        let absent = cost_of(
            "(i32.eq (i32.const 1) (call $get (i32.const 15) (i32.const 7) (i32.const 32) (i32.const 36)))",
        );
        assert_eq!((absent.allocations, absent.bytes_out, absent.bytes_in), (0, 7, 0));
    }

    #[test]
    fn a_plugin_that_refuses_its_configuration_is_an_error() {
        let refused = vm("(i32.const 0)").unwrap().configure("role", "root", b"");
        assert!(refused.unwrap_err().to_string().contains("refused"));
    }

    #[test]
    fn a_host_call_that_is_not_simulated_traps_with_its_name() {
        let zeros = "(i32.const 0) ".repeat(10);
        let trapped = vm(&format!("(call $call {zeros})")).unwrap().configure("role", "root", b"");
        let error = trapped.unwrap_err().to_string();
        assert!(error.contains("env.proxy_http_call is not simulated"), "{error}");
    }

    #[test]
    fn a_pointer_outside_the_memory_traps() {
        let body = "(call $random (i32.const 65536) (i32.const 1))";
        let error = vm(body).unwrap().configure("role", "root", b"").unwrap_err().to_string();
        assert!(error.contains("outside its memory"), "{error}");
    }

    #[test]
    fn a_callback_costs_its_instructions() {
        let plugin = |body| {
            let mut vm = vm(body).unwrap();
            let plugin = vm.configure("role", "root", b"").unwrap();
            vm.callback(&plugin, 1, "proxy_on_configure", &[0], true).unwrap();
            vm.take_cost().fuel["role on_configure"]
        };
        let short = plugin("(i32.const 1)");
        let long = plugin("(i32.add (i32.const 1) (i32.add (i32.const 2) (i32.const 3)))");
        assert!(long > short && long < 20, "{short} {long}");
    }
}
