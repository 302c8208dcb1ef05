;; Stands in for the filter: routes every request to the cluster that its configuration names, {"cluster":"<name>"}.
;; Any other configuration is logged as an error and refused, so that tests can see what Envoy handed over.
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $set_header (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 16)
  ;; 0: pointer to the configuration, 4: its length; both are written by Envoy. From 4096 on: memory given to Envoy.
  (data (i32.const 16) "{\"cluster\":\"")
  (data (i32.const 64) "x-session-affinity-cluster")
  (data (i32.const 128) "debug line of the stand-in")
  (global $free (mut i32) (i32.const 4096))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param $size i32) (result i32)
    (global.get $free)
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 7)) (i32.const -8))))

  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)
    (local $index i32)
    ;; 7: the configuration of the plugin.
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)))
    (loop $compare
      (if (i32.ne
            (i32.load8_u (i32.add (i32.load (i32.const 0)) (local.get $index)))
            (i32.load8_u (i32.add (i32.const 16) (local.get $index))))
        (then
          (drop (call $log (i32.const 4) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
          (return (i32.const 0))))
      (local.set $index (i32.add (local.get $index) (i32.const 1)))
      (br_if $compare (i32.lt_u (local.get $index) (i32.const 12))))
    (i32.const 1))

  (func (export "proxy_on_request_headers") (param $context i32) (param $headers i32) (param $end i32) (result i32)
    (drop (call $log (i32.const 1) (i32.const 128) (i32.const 26)))
    ;; 0: the headers of the request. The name is what stands between the 12 bytes before and the 2 bytes after it.
    (drop (call $set_header
      (i32.const 0)
      (i32.const 64) (i32.const 26)
      (i32.add (i32.load (i32.const 0)) (i32.const 12))
      (i32.sub (i32.load (i32.const 4)) (i32.const 14))))
    (i32.const 0)))
