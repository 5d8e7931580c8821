// JavaScript values to C++ and back. Arrays are copied at the door; a wrong type or length is ARCHER_E_SHAPE with the
// field's name.
#pragma once
#include <napi.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/packed.h"

namespace archer::binding {

template <typename T>
constexpr napi_typedarray_type typed_array_type() {
  if constexpr (std::is_same_v<T, float>) return napi_float32_array;
  else if constexpr (std::is_same_v<T, double>) return napi_float64_array;
  else if constexpr (std::is_same_v<T, int32_t>) return napi_int32_array;
  else if constexpr (std::is_same_v<T, uint32_t>) return napi_uint32_array;
  else {
    static_assert(std::is_same_v<T, uint8_t>);
    return napi_uint8_array;
  }
}

template <typename T>
constexpr const char* typed_array_name() {
  if constexpr (std::is_same_v<T, float>) return "a Float32Array";
  else if constexpr (std::is_same_v<T, double>) return "a Float64Array";
  else if constexpr (std::is_same_v<T, int32_t>) return "an Int32Array";
  else if constexpr (std::is_same_v<T, uint32_t>) return "a Uint32Array";
  else return "a Uint8Array";
}

// A required typed array of an options object.
template <typename T>
std::vector<T> array(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  require(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == typed_array_type<T>(), kShape,
          std::string(key) + " must be " + typed_array_name<T>());
  const auto typed = value.As<Napi::TypedArrayOf<T>>();
  return std::vector<T>(typed.Data(), typed.Data() + typed.ElementLength());
}

// The same, empty where the key is absent.
template <typename T>
std::vector<T> optional_array(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return value.IsUndefined() || value.IsNull() ? std::vector<T>{} : array<T>(object, key);
}

inline double number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  require(value.IsNumber(), kShape, std::string(key) + " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

inline double number_or(const Napi::Object& object, const char* key, double fallback) {
  return object.Get(key).IsUndefined() ? fallback : number(object, key);
}

inline int64_t integer(const Napi::Object& object, const char* key) {
  const double value = number(object, key);
  require(value == static_cast<double>(static_cast<int64_t>(value)), kShape, std::string(key) + " must be a whole number");
  return static_cast<int64_t>(value);
}

inline bool boolean(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  require(value.IsBoolean(), kShape, std::string(key) + " must be true or false");
  return value.As<Napi::Boolean>().Value();
}

inline bool boolean_or(const Napi::Object& object, const char* key, bool fallback) {
  return object.Get(key).IsUndefined() ? fallback : boolean(object, key);
}

inline std::string text(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  require(value.IsString(), kShape, std::string(key) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

inline Napi::Object object(const Napi::Value& value, const char* what) {
  require(value.IsObject(), kShape, std::string(what) + " must be an object");
  return value.As<Napi::Object>();
}

// ids and offsets of a packed batch; checks that the offsets rise from 0 to the number of ids and no sequence is empty.
PackedSequences packed(const Napi::Object& object, const char* ids_key, const char* offsets_key);

template <typename T>
Napi::Value to_js(Napi::Env env, const std::vector<T>& values) {
  auto result = Napi::TypedArrayOf<T>::New(env, values.size());
  std::copy(values.begin(), values.end(), result.Data());
  return result;
}

}  // namespace archer::binding
