// expect_error: a body that must throw an ArcherError of this code whose words hold this part.
#pragma once
#include <cstdio>
#include <string>

#include "check.h"
#include "core/error.h"

template <typename Body>
void expect_error(const char* code, const std::string& part, Body body) {
  try {
    body();
    std::printf("no error with \"%s\"\n", part.c_str());
    CHECK(false);
  } catch (const archer::ArcherError& error) {
    const bool fits = std::string(error.code()) == code && std::string(error.what()).find(part) != std::string::npos;
    if (!fits) std::printf("%s: %s\n", error.code(), error.what());
    CHECK(fits);
  }
}
