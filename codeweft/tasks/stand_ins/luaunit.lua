-- Of luaunit: the one assertion that MultiPL-E's tests make, and the run that counts failures.
package.preload["luaunit"] = function()
  local unit = { LuaUnit = {} }
  local function equal(left, right)
    if type(left) ~= "table" or type(right) ~= "table" then return left == right end
    for key, value in pairs(left) do if not equal(value, right[key]) then return false end end
    for key in pairs(right) do if left[key] == nil then return false end end
    return true
  end
  function unit.assertEquals(actual, expected)
    if not equal(actual, expected) then error("not equal", 2) end
  end
  function unit.LuaUnit.run()
    local tests, failed = {}, 0
    for name, value in pairs(_G) do
      if type(name) == "string" and name:match("^test") and type(value) == "function" then tests[#tests + 1] = value end
    end
    for _, test in ipairs(tests) do
      local held, reason = pcall(test)
      if not held then failed = failed + 1; io.stderr:write(tostring(reason), "\n") end
    end
    return failed
  end
  return unit
end
