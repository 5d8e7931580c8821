{
  # For habits: `node-gyp rebuild` ends in the one build that there is, scripts/build-native.mjs (output: native/build).
  "targets": [
    {
      "target_name": "archer_native",
      "type": "none",
      "actions": [
        {
          "action_name": "build_native",
          "inputs": ["scripts/build-native.mjs"],
          # Never made, so that the action always runs; it knows itself whether there is anything to do.
          "outputs": ["<(PRODUCT_DIR)/archer_native.always"],
          "action": ["node", "scripts/build-native.mjs"]
        }
      ]
    }
  ]
}
